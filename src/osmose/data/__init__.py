"""Data sets by name or path, numbered views of their samples, and the loader that deals them out."""

from osmose.data.batch import Batch
from osmose.data.dataset import Dataset, Split, load_data, show_data
from osmose.data.loader import Loader
from osmose.data.ratings import Ratings, load_ratings
from osmose.data.views import Views

__all__ = ["Batch", "Dataset", "Loader", "Ratings", "Split", "Views", "load_data", "load_ratings", "show_data"]
