"""Data sets by name or path, numbered views of their samples, and the loader that deals them out."""

from osmose.data.batch import Batch
from osmose.data.dataset import Dataset, Split, load_data, show_data
from osmose.data.loader import Loader
from osmose.data.views import Views

__all__ = ["Batch", "Dataset", "Loader", "Split", "Views", "load_data", "show_data"]
