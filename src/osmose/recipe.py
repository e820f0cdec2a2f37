"""Recipes: plain values (YAML, flags, keyword arguments) to checked settings and back.

A recipe is a mapping with the keys of `Recipe`. Its section `method` names a method and holds the keyword-only arguments of
that method's constructor; `data: NAME` and `method: NAME` are short for a section with only a name. A recipe with the key
`stages` is a list of recipes: each takes the other keys as its defaults, and `$NAME` in it is the student of the stage NAME, of
several `$NAME/student2` the second; options may follow it, and `head:` stand before it, as with a model's name.
"""

import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import resources
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jsonargparse
import yaml

from osmose.augmentors.registry import find_augmentor
from osmose.data.blend import Blend
from osmose.data.crops import Crops
from osmose.data.documents import TEXT
from osmose.data.ratings import RATINGS, find_ratings
from osmose.data.sources import find
from osmose.data.views import Views
from osmose.engine.method import Method
from osmose.engine.settings import Training
from osmose.errors import UserError, unknown
from osmose.methods import METHODS, find_method
from osmose.models.backbones import Backbones
from osmose.models.generator import Generator
from osmose.models.language import LanguageModel
from osmose.models.network import Network
from osmose.signals import Signals
from osmose.targets import find_target

Plain = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which data, and which part of it.

    Args:
        name: a data set; see `osmose show data`.
        fraction: stratified share of the training part to use.
        split_seed: seed of the fraction and of the held-out part.
        labelled: whether the training part's labels may be used.
        heldout: share of the training images held out, where the data set does not fix it.
        image_size: side of the square that images are resized and centre-cropped to, where they have several sizes.
        crop_ratio: side of that crop over the shorter side of the resized image (timm's crop_pct).
    """

    name: str = "fashion-mnist-mini"
    fraction: float = 1.0
    split_seed: int = 0
    labelled: bool = True
    heldout: float = 0.1
    image_size: int | None = None
    crop_ratio: float = 1.0


BLOCKS = 16
"""Blocks of text in an optimiser step where a recipe does not say."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Which text, and how it is cut.

    Args:
        name: "text:PATH", a file or folder of .txt, .jsonl, .json and .parquet files; "text:hf:NAME" from the hub.
        length: tokens of a block, which is one sample; documents are packed into blocks side by side.
        separator: what divides a .txt file into documents, for example a blank line; none takes a file as one document.
        heldout: share of the training documents held out, where the folder has no files validation*.
        test: share of all documents that is the test part, where the folder has no files test*.
        fraction: share of the training part's blocks to use.
        split_seed: seed of every choice of documents and blocks.
        others: further texts, of which students and teachers are tested on the test part too.
        cache: folder in which the training part's blocks are kept and read from, 12 bytes a token, for text that does not fit
            in memory or takes long to cut; none holds them in memory.
    """

    name: str = ""
    length: int = 512
    separator: str | None = None
    heldout: float = 0.05
    test: float = 0.05
    fraction: float = 1.0
    split_seed: int = 0
    others: list[str] = field(default_factory=list)
    cache: str | None = None

    def cutting(self) -> Plain:
        """The arguments of `load_text`."""
        return _without(vars(self), "others")

    def scoring(self, name: str | None = None) -> Plain:
        """The arguments of `load_passages`, for this text or another one."""
        return {**_without(self.cutting(), "fraction", "cache"), "name": name or self.name}


@dataclass(frozen=True, kw_only=True)
class RatingData:
    """Which ratings.

    Args:
        name: "ratings:DIR", a folder with MovieLens's or RecBole's files.
        genre: take only the ratings of items of this genre, after all of them were divided into parts; none takes all.
        test: share of all ratings that is the test part.
        heldout: share of the rest held out.
        fraction: share of the training part to use.
        split_seed: seed of every choice of ratings.
    """

    name: str = ""
    genre: str | None = None
    test: float = 0.2
    heldout: float = 0.1
    fraction: float = 1.0
    split_seed: int = 0


_KINDS: dict[str, type] = {TEXT: Text, RATINGS: RatingData}
"""The section `data` by how a name begins; of all other names it is `Data`."""


_TRAINED: dict[type, set[type]] = {Data: {Network, Generator, Backbones}, Text: {LanguageModel}, RatingData: {Network}}
"""What kinds of models can be trained on each kind of data."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Training):
    """Everything that determines a run.

    Args:
        teacher: a model, a list of models, or none; see `osmose show models`.
        student: a model, or a list of those that learn side by side.
        data: the data.
        view: what is done to an image before networks see it; of which kind, the method says.
        blend: what is done to a batch after that.
        signals: whether what frozen networks say is kept on disk.
        method: the method's name and settings.
        corruptions: corruptions of the test part on which students and teachers are tested too: "fog" at five severities,
            "fog:3" at one, "translate", or "all" for the nineteen of ImageNet-C.
    """

    teacher: str | list[str] | None = None
    student: str | list[str] = ""
    data: Data | Text | RatingData = field(default_factory=Data)
    view: Views | Crops = field(default_factory=Views)
    blend: Blend = field(default_factory=Blend)
    signals: Signals = field(default_factory=Signals)
    method: Plain = field(default_factory=lambda: {"name": "distill"})
    corruptions: list[str] = field(default_factory=list)

    @property
    def roles(self) -> dict[str, str]:
        """The teachers' names by role: "teacher1", "teacher2", ..."""
        names = [self.teacher] if isinstance(self.teacher, str) else self.teacher or []
        return {f"teacher{number}": name for number, name in enumerate(names, start=1)}

    @property
    def students(self) -> list[str]:
        """The students' names."""
        return [self.student] if isinstance(self.student, str) else self.student

    @property
    def is_text(self) -> bool:
        """Whether the data are text."""
        return isinstance(self.data, Text)

    @property
    def views(self) -> int:
        """How many views of a sample the run shows."""
        return min(self.view.count or self.epochs, self.epochs) if isinstance(self.data, Data) else 1

    @property
    def viewed(self) -> Plain:
        """What is done to a sample in each of them, as plain values."""
        return _without(dataclasses.asdict(self.view), "count") if isinstance(self.data, Data) else {}

    def method_arguments(self) -> tuple[type[Method], Plain]:
        """The method and its constructor's keyword arguments, as typed objects."""
        cls = find_method(self.method["name"])
        return cls, _typed(cls, _without(self.method, "name"), "method")

    def plain(self) -> Plain:
        """The recipe as plain values, every default filled in."""
        return _plain(dataclasses.asdict(self))


def resolve(values: Mapping[str, Any]) -> Recipe:
    """The recipe that plain values describe, with every default filled in.

    Raises:
        UserError: for an unknown key or name, a value of another type, or a missing student; the message names the key.
    """
    values = dict(values)
    for key in ("data", "method", "blend"):
        if isinstance(values.get(key), str):
            values[key] = {"name": values[key]}
    method: Any = values.pop("method", {})
    if not isinstance(method, Mapping) or not isinstance(method.get("name", ""), str):
        raise UserError("recipe key 'method' needs a name: method: {name: distill, ...}; see `osmose show methods`")
    name = method.get("name", "distill")
    cls = find_method(name)
    section = _without(method, "name")
    _typed(cls, section, "method")
    if isinstance(section.get("target"), str):
        find_target(section["target"])
    data = data_settings(values.pop("data", {}))
    if cls.trains not in _TRAINED[type(data)]:
        fitting = [name for name, one in METHODS.items() if one.trains in _TRAINED[type(data)]]
        raise UserError(f"method {name} does not work on {data.name}: use {' or '.join(fitting[:2])}, or other data")
    if isinstance(data, Text):
        values.setdefault("batch_size", BLOCKS)
    view = values.pop("view", {})
    if not isinstance(view, Mapping):
        raise UserError(f"key 'view' is {view!r}: expected a section; see `osmose show settings`")
    known = [one.name for one in dataclasses.fields(Recipe)]
    for key in values:
        if key not in known:
            raise _unknown_key(Recipe, str(key), "", known, cls)
    arguments = {
        "data": data,
        "view": cls.sees(**_typed(cls.sees, view, "view")),
        **_typed(Recipe, values, "", skip=frozenset({"data", "method", "view"})),
    }
    if not arguments.get("student"):
        raise UserError("the recipe names no student: give --student; see `osmose show models`")
    if isinstance(arguments["student"], list) and len(arguments["student"]) == 1:
        (arguments["student"],) = arguments["student"]
    if isinstance(arguments["student"], list) and cls.trains is not Backbones:
        raise UserError(f"method {name} trains one student, {len(arguments['student'])} given: choose one")
    resolved = _plain(_parser(cls).parse_object(section).as_dict())
    for key in (name for name in resolved if name.endswith("optimiser")):
        given = section.get(key) or {}
        if "momentum" in given and "name" not in given and resolved[key]["name"] != "sgd":
            raise UserError(
                f"method.{key} has a momentum and no name: method {name} takes {resolved[key]['name']}, which has none; "
                "give name: sgd, or leave momentum out"
            )
    if "augmentor" in resolved:
        resolved["augmentor"] = _augmentor(resolved["augmentor"], "method.augmentor")
    recipe = Recipe(**arguments, method={"name": name, **resolved})
    kept, asked = recipe.signals.top_k, resolved.get("top_k")
    if kept is not None and asked is not None and asked > kept:
        raise UserError(f"method.top_k is {asked} and signals.top_k keeps {kept} classes: keep as many as are compared")
    return recipe


def completed(saved: Plain) -> Plain:
    """A run's saved recipe with the defaults of keys that came after the version that saved it."""
    if "stages" in saved:
        return {"stages": [{"name": stage["name"], **completed(_without(stage, "name"))} for stage in saved["stages"]]}
    method = saved.get("method", {}).get("name")
    known = {"method": _defaults(METHODS[method])} if method in METHODS else {}
    known["data"] = _defaults(_data_kind(saved.get("data", {})))
    sees: type = METHODS[method].sees if method in METHODS else Views
    known["view"] = _defaults(sees)
    return _filled(saved, _defaults(Recipe) | known)


def _augmentor(section: Any, dotted: str) -> Any:
    """An augmentor's section, or a list of them, with every default filled in."""
    if isinstance(section, list | tuple):
        return [_augmentor(part, f"{dotted}.{place}") for place, part in enumerate(section)]
    if not isinstance(section, Mapping):
        section = {"name": section}
    cls = find_augmentor(section.get("name"))
    settings = _without(section, "name")
    _typed(cls, settings, dotted)
    return {"name": section["name"], **_plain(_parser(cls).parse_object(settings).as_dict())}


def data_settings(section: Any) -> Data | Text | RatingData:
    """The section `data` of a recipe, or a data set's name, as settings.

    Raises:
        UserError: for an unknown key or a value of another type.
    """
    if not isinstance(section, str | Mapping):
        raise UserError(f"key 'data' is {section!r}: expected a data set's name, or a section; see `osmose show data`")
    given = {"name": section} if isinstance(section, str) else section
    kind = _data_kind(given)
    settings: Data | Text | RatingData = kind(**_typed(kind, given, "data"))
    return settings


def load(name: str) -> Plain:
    """The plain values of a recipe file, or of a packaged recipe by name.

    Raises:
        UserError: when there is no such file or recipe, or it is not a YAML mapping.
    """
    path, texts = Path(name), packaged()
    if path.suffix in (".yaml", ".yml") or (path.exists() and name not in texts):
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read recipe {path}: {error}; see `osmose show recipes` for packaged ones"
            ) from None
    else:
        if name not in texts:
            raise unknown("recipe", name, texts)
        text = texts[name]
    return _mapping(text, name)


def defaults(changes: Mapping[str, Any]) -> Plain:
    """What a transfer starts from: the packaged recipe "default" on its own data set, the papers' settings on any other; on text
    those of method language.

    Where the changes name another method, that recipe's teacher and method are left out.

    Raises:
        UserError: when the data set is unknown or its folder missing.
    """
    default = _mapping(packaged()["default"], "default")
    data, method = (_name(changes.get(key)) for key in ("data", "method"))
    if data and data.startswith(TEXT):
        return {"method": "language"}
    if data and data.startswith(RATINGS):
        find_ratings(data)
        return {}
    if data not in (None, default["data"]):
        find(data)
        return {}
    if method not in (None, default["method"]["name"]):
        return _without(default, "teacher", "method")
    return default


def packaged(folder: str = "recipes") -> dict[str, str]:
    """The text of every YAML file in a folder of the package ("recipes", "recipes/studies"), by name."""
    files = sorted(resources.files("osmose").joinpath(folder).iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): file.read_text() for file in files if file.name.endswith(".yaml")}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Plain:
    """`base` with `changes` laid over it, section by section.

    A section that names another method or data set than the old one replaces it whole, but for text in the place of text, ratings
    in that of ratings, and any data in the place of none.
    """
    merged = dict(base)
    for key, value in changes.items():
        old: Any = merged.get(key)
        if key in ("method", "data", "augmentor", "blend"):
            old, value = ({"name": v} if isinstance(v, str) else v for v in (old, value))
            if (
                isinstance(old, Mapping)
                and isinstance(value, Mapping)
                and value.get("name", old.get("name")) != old.get("name")
                and not (key == "data" and "name" not in old)
                and not (key == "data" and _data_kind(old) is _data_kind(value) is not Data)
            ):
                old = None
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def stages(values: Mapping[str, Any]) -> dict[str, Plain]:
    """A recipe's stages by name, each with the common keys filled in; a recipe without stages is one stage named "".

    Raises:
        UserError: for a stage without a name or with one taken, or a `$NAME` that no earlier stage has.
    """
    if "stages" not in values:
        return {"": dict(values)}
    common = _without(values, "stages")
    if not isinstance(values["stages"], list) or not values["stages"]:
        raise UserError("recipe key 'stages' is not a list of stages: each begins with '- name: ...'")
    found: dict[str, Plain] = {}
    for number, stage in enumerate(values["stages"], start=1):
        name = stage.get("name") if isinstance(stage, Mapping) else None
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or name in found:
            raise UserError(f"stage {number} needs a name of its own, of letters, digits, '-' and '_'")
        plain = merge(common, _without(stage, "name"))
        for product in (p for key in ("teacher", "student") for p in _products(plain.get(key))):
            if product.stage not in found:
                raise UserError(
                    f"stage '{name}' uses ${product.stage}, which no earlier stage makes: earlier are {list(found)}"
                )
            _check_member(product, found[product.stage].get("student"))
        found[name] = plain
    return found


def changed_stages(values: Plain, changes: Mapping[str, Any]) -> Plain:
    """A recipe with `changes` laid over it and over each of its stages; a `$NAME` in a stage stays."""
    changed = merge(values, changes)
    if isinstance(values.get("stages"), list):
        changed["stages"] = [
            merge(stage, {key: value for key, value in changes.items() if not _products(stage.get(key))})
            if isinstance(stage, Mapping)
            else stage
            for stage in values["stages"]
        ]
    return changed


def _check_member(product: "Product", students: Any) -> None:
    """Raise `UserError` unless an earlier stage with these students makes it."""
    several = isinstance(students, list) and len(students) > 1
    members = [f"student{number}" for number in range(1, len(students) + 1)] if several else ["", "student"]
    if product.member not in members:
        given = f"${product.stage}" + (f"/{product.member}" if product.member else "")
        raise UserError(
            f"'{given}' is no student of stage '{product.stage}': give "
            + " or ".join(f"${product.stage}/{member}" if member else f"${product.stage}" for member in members)
        )


class Product(NamedTuple):
    """What a name like `$STAGE`, `$STAGE/student2`, `head:$STAGE` or `$STAGE,layers=2` stands for.

    Attributes:
        way: "head:", or empty.
        stage: the stage's name.
        member: which of its students; empty where it has one.
        options: what follows, from its comma on.
    """

    way: str
    stage: str
    member: str
    options: str


def product(name: str) -> Product | None:
    """The student of an earlier stage that a name stands for; None for any other name."""
    found = re.fullmatch(r"(head:)?\$([\w-]+)(?:/([\w-]+))?(,.*)?", name)
    return Product(*(part or "" for part in found.groups())) if found else None


def _products(value: Any) -> list[Product]:
    """The students of earlier stages among a stage's student or teachers."""
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [found for name in names if isinstance(name, str) and (found := product(name))]


def describe(cls: type) -> list[dict[str, Any]]:
    """The keys of a section, from its class's constructor: key, default and meaning of each."""
    meanings = {action.dest: action.help for action in _parser(cls)._actions}
    for name, inner in _sections(cls).items():
        meanings |= {f"{name}.{row['key']}": row["meaning"] for row in describe(inner)}
    rows = [
        {"key": key, "default": value, "meaning": meanings.get(key)} for key, value in _flat(_defaults(cls)).items()
    ]
    if cls is Recipe:
        rows += [{**row, "key": f"data.{row['key']}"} for row in describe(Data)]
        rows += [{**row, "key": f"view.{row['key']}"} for row in describe(Views)]
        rows += [{**row, "key": f"view.{row['key']}", "for": "crops"} for row in describe(Crops)]
        for kind, prefix in ((Text, TEXT), (RatingData, RATINGS)):
            rows += [{**row, "key": f"data.{row['key']}", "for": prefix.removesuffix(":")} for row in describe(kind)]
    return rows


def _sections(cls: type) -> dict[str, type]:
    """The classes of a constructor's arguments that may be a section or nothing, by name."""
    return {
        parameter.name: kind
        for parameter in signature(cls).parameters.values()
        for kind in get_args(parameter.annotation)
        if type(None) in get_args(parameter.annotation) and isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }


def _data_kind(section: Mapping[str, Any]) -> Any:
    """The class of the section `data`."""
    name = str(section.get("name", ""))
    return next((kind for prefix, kind in _KINDS.items() if name.startswith(prefix)), Data)


def image_settings(section: Any) -> Data:
    """The same, of a data set of images.

    Raises:
        UserError: for any other data.
    """
    settings = data_settings(section)
    if not isinstance(settings, Data):
        raise UserError(f"'{settings.name}' has no images, and this compares networks of images: use osmose evaluate")
    return settings


@cache
def _defaults(cls: type) -> Plain:
    defaults: Plain = _plain(_parser(cls).get_defaults().as_dict())
    return defaults


def _filled(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> Plain:
    """The section with what it lacks of the defaults, in the sections below it too."""
    below = {
        key: _filled(value, defaults[key])
        for key, value in section.items()
        if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping)
    }
    return {**defaults, **section, **below}


def _name(section: Any) -> str | None:
    name = section.get("name") if isinstance(section, Mapping) else section
    return name if isinstance(name, str) else None


class _Strict(yaml.SafeLoader):
    """PyYAML's safe loader, which makes plain values alone, with one more rule: a key given twice is an error."""


def _strict_mapping(loader: _Strict, node: yaml.MappingNode) -> Plain:
    keys = [key.value for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1 and key != "<<":
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", node.start_mark)
    loader.flatten_mapping(node)
    return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


def _mapping(text: str, name: str) -> Plain:
    try:
        values = yaml.load(text, _Strict)
    except yaml.YAMLError as error:
        raise UserError(f"recipe {name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"recipe {name} is not a mapping of keys to values")
    return values


@cache
def _parser(cls: type, skip: frozenset[str] = frozenset()) -> jsonargparse.ArgumentParser:
    """The parser of a section; what `data` may hold depends on its name, so that has one of its own."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    apart = {"student", "frozen"} if issubclass(cls, Method) else {"data", "view"} if cls is Recipe else set()
    parser.add_class_arguments(cls, skip=apart | skip)
    return parser


def _typed(cls: type, section: Mapping[str, Any], prefix: str, skip: frozenset[str] = frozenset()) -> Plain:
    """Keyword arguments for `cls` from plain values; where they are refused, each key is tried so that an error can name it.

    The settings of an optimiser call themselves 'optimiser', whatever the section is called that they are in.
    """
    _check_keys(cls, section, prefix, skip)
    parser = _parser(cls, skip)
    with warnings.catch_warnings():
        try:
            return dict(vars(parser.instantiate(parser.parse_object(dict(section)))))
        except _REFUSED as error:
            for key, value in section.items():
                dotted = _dotted(prefix, key)
                try:
                    parser.instantiate(parser.parse_object({key: value}))
                except _REFUSED as wrong:
                    own = _own(wrong)
                    if isinstance(own, UserError):
                        raise UserError(str(own).replace("key 'optimiser.", f"key '{dotted}.")) from None
                    raise UserError(_wrong_type(dotted, key, value, str(wrong))) from None
            raise _own(error) from None


_REFUSED = (jsonargparse.ArgumentError, TypeError, ValueError, UserError)
"""What jsonargparse and the sections raise for a value."""


def _own(error: BaseException) -> BaseException:
    """The `UserError` of a section that may be none: jsonargparse wraps what its constructor raises."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _check_keys(cls: type, section: Mapping[str, Any], prefix: str, skip: frozenset[str] = frozenset()) -> None:
    """Only keys of `cls` and of the sections in it get as far as jsonargparse, which would import a `class_path`."""
    parameters = signature(cls).parameters.values()
    known = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in skip}
    for key, value in section.items():
        dotted = _dotted(prefix, key)
        if key not in known:
            raise _unknown_key(cls, str(key), prefix, known)
        accepted = get_args(known[key]) or (known[key],)
        inner = next((kind for kind in accepted if dataclasses.is_dataclass(kind)), None)
        if isinstance(inner, type) and isinstance(value, Mapping):
            _check_keys(inner, value, dotted)
        elif isinstance(inner, type) and accepted == (inner,):
            names = sorted(field.name for field in dataclasses.fields(inner))
            raise UserError(f"key '{dotted}' is {value!r}: expected a section with {', '.join(names)}")
        elif value is None and type(None) not in accepted:
            raise UserError(f"key '{dotted}' is empty: give it a value, or leave it out for its default")


def _unknown_key(
    cls: type, key: str, prefix: str, known: Iterable[str], method: type[Method] | None = None
) -> UserError:
    """The error for an unknown key; of keys in sections below, and of a method, the nearest is named by its whole path."""
    names = {_dotted(prefix, name) for name in known}
    below = {row["key"].split(".")[-1]: row["key"] for row in describe(cls) if "." in row["key"]}
    if method is not None:
        paths = {f"method.{row['key']}" for row in describe(method)}
        paths |= {path.rpartition(".")[0] for path in paths if path.count(".") > 1}
        below = {path.split(".")[-1]: path for path in sorted(paths, key=len, reverse=True)} | below
    near = get_close_matches(key, [*below, *(name.split(".")[-1] for name in names)], n=1, cutoff=0.6)
    if near and near[0] in below:
        return UserError(f"unknown key '{_dotted(prefix, key)}': did you mean '{_dotted(prefix, below[near[0]])}'?")
    return unknown("key", _dotted(prefix, key), names)


def _dotted(prefix: str, key: Any) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _wrong_type(dotted: str, key: str, value: Any, message: str) -> str:
    """One line from jsonargparse's message, which names the key inside a section and then what it expects there."""
    *outer, message = re.split(r'key "([^"]+)":', message)
    if outer:
        path = ".".join(outer[1::2])
        dotted = dotted.removesuffix(key) + path
        for part in path.split(".")[1:]:
            value = value.get(part) if isinstance(value, Mapping) else value
    found = re.findall(r"Expected (?:an? )?(.*?)(?:\. Got |\n|$)", message)
    expected = " or ".join(dict.fromkeys(found)) or "another type"
    readable = re.sub(r"<class '([^']+)'>", r"\1", expected)
    for said, plain in {"typing.Literal": "one of ", "NoneType": "none", "tuple": "list"}.items():
        readable = readable.replace(said, plain)
    return f"key '{dotted}' is {value!r}: expected {readable}"


def _without(section: Mapping[str, Any], *keys: str) -> Plain:
    return {key: value for key, value in section.items() if key not in keys}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Plain:
    found: Plain = {}
    for key, value in values.items():
        found.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "class_path" in value:  # a section that may be none has its class beside it
            value = value["init_args"]
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
