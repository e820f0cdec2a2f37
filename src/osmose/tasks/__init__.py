"""Tasks: what data and networks of a run are, one file a kind."""

from osmose.methods import find_method
from osmose.models.language import LanguageModel
from osmose.recipe import Recipe
from osmose.tasks.images import ImageTask
from osmose.tasks.task import Measured, Modules, Task
from osmose.tasks.text import TextTask

__all__ = ["Measured", "Modules", "Task", "find_task"]


def find_task(recipe: Recipe) -> type[Task]:
    """The kind of task that a recipe's method works on."""
    return TextTask if find_method(recipe.method["name"]).trains is LanguageModel else ImageTask
