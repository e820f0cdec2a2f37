"""What there is to choose from: the rows of `osmose show`."""

from importlib.util import find_spec
from typing import Any

import yaml

from osmose import recipe
from osmose.augmentors import AUGMENTORS
from osmose.data import show_data
from osmose.data.documents import TEXT
from osmose.data.ratings import RATINGS
from osmose.methods import METHODS
from osmose.models import show_models
from osmose.targets import TARGETS

Rows = list[dict[str, Any]]


def models() -> Rows:
    """The zoo, a row a model, and what other names there are."""
    others = {
        "timm:NAME": "a network of timm with its published weights; extra vision",
        "file:PATH": "a run's folder, or weights that Osmose wrote",
        "fresh:MODEL": "new weights: fresh:zoo:vit-s, fresh:timm:NAME, fresh:hf:FOLDER, each with options: ,patch=4",
        "head:MODEL": "its weights with a new classifier; head:zoo:vit-m,depth=2: those of its first blocks; "
        "head:zoo:vit-m,last_layers=2: behind the last two",
        "hf:FOLDER": "a language model, or hf:NAME of the hub, or hf:FILE.gguf; hf:FOLDER,layers=6: six layers; extra language",
        "fresh:ratings:two-tower": "says how a user rates an item",
        "fresh:nix:NAME": "cnn, mlp, vit, resnet18 and vit-cifar10, the networks of method hard's paper; its toy is toy:cosine",
    }
    return [*show_models(), *({"name": name, "description": text} for name, text in others.items())]


def data() -> Rows:
    """Data sets that can be named."""
    text = {
        "name": f"{TEXT}PATH",
        "description": "text for method language: .txt, .jsonl, .json and .parquet files, or text:hf:NAME of the hub",
        "licence": "that of the files",
        "available": find_spec("transformers") is not None,
    }
    ratings = {
        "name": f"{RATINGS}DIR",
        "description": "ratings of items by users, in MovieLens's and RecBole's files",
        "licence": "that of the files",
        "available": True,
    }
    return [*show_data(), text, ratings]


def methods() -> Rows:
    """Methods, and beside them the targets that any logit method accepts."""
    found = [{"name": key, "kind": "method", "summary": m.summary, "source": m.source} for key, m in METHODS.items()]
    targets = [{"name": key, "kind": "target", "summary": target.summary} for key, target in TARGETS.items()]
    return [*found, *targets]


def augmentors() -> Rows:
    """Learned augmentations for method `hard`, each with its settings."""
    return [
        {"name": name, "summary": str(cls.__doc__).splitlines()[0], "settings": recipe.describe(cls)}
        for name, cls in AUGMENTORS.items()
    ]


def recipes() -> Rows:
    """Packaged recipes; the summary is their first line."""
    return _packaged("recipe", recipe.packaged())


def studies() -> Rows:
    """Packaged studies; the summary is their first line."""
    return _packaged("study", recipe.packaged("recipes/studies"))


def settings() -> Rows:
    """Every key of a recipe with its default and meaning; the method's are listed for each method."""
    rows = [row for row in recipe.describe(recipe.Recipe) if row["key"] != "method"]
    for name, method in METHODS.items():
        rows += [{**row, "key": f"method.{row['key']}", "for": name} for row in recipe.describe(method)]
    return rows


def _packaged(kind: str, texts: dict[str, str]) -> Rows:
    return [
        {"name": name, "summary": text.splitlines()[0].lstrip("# "), kind: yaml.safe_load(text)}
        for name, text in texts.items()
    ]
