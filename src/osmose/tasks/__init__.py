"""Tasks: what data and networks of a run are, one file a kind."""

from osmose.methods import find_method
from osmose.models.backbones import Backbones
from osmose.recipe import Data, RatingData, Recipe, Text
from osmose.tasks.backbones import BackboneTask
from osmose.tasks.images import ImageTask
from osmose.tasks.ratings import RatingTask
from osmose.tasks.task import Measured, Modules, Task
from osmose.tasks.text import TextTask

__all__ = ["Measured", "Modules", "Task", "find_task"]


def find_task(recipe: Recipe) -> type[Task]:
    """The kind of task that a recipe's data make."""
    if find_method(recipe.method["name"]).trains is Backbones:
        return BackboneTask
    kinds: dict[type, type[Task]] = {Data: ImageTask, Text: TextTask, RatingData: RatingTask}
    return kinds[type(recipe.data)]
