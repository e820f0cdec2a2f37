"""The documentation: links lead somewhere, commands and recipes are understood, Python blocks run.

Of code blocks are checked: `sh` (every `osmose` command: its flags, recipe and settings, without running it), `yaml` (a whole
recipe), `yaml study`, and `python run` (executed).
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml

from osmose import api, cli, comparison, execution, grid, recipe, report, stores
from osmose.data.corruptions import parse
from osmose.data.sources import SOURCES as DATA
from osmose.methods import METHODS
from osmose.models.sources import SOURCES as MODELS
from osmose.targets import TARGETS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
BLOCK = re.compile(r"^```([\w ]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(kind: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, (found, text) in enumerate(BLOCK.findall(page.read_text()))
        if found == kind
    ]


def commands() -> list[Any]:
    """The arguments of every `osmose` command: a line's words after `osmose`, or after `-m osmose`."""
    return [
        pytest.param(words[words.index("osmose") + 1 :], id=f"{block.id} {line}")
        for block in blocks("sh")
        for line in block.values[0].replace("\\\n", " ").splitlines()
        if "osmose" in (words := shlex.split(line, comments=True))
    ]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.fixture
def registries() -> Iterator[None]:
    """What a documented `--import` registers is gone afterwards."""
    before = [(registry, dict(registry)) for registry in (METHODS, TARGETS, DATA, MODELS)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are written for the repository's root; data folders and weights that they name need not be there."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(recipe, "find", lambda name: None)
    monkeypatch.setattr(recipe, "find_ratings", lambda name: None)
    monkeypatch.setattr(execution, "check_names", lambda recipes: None)
    monkeypatch.setattr(grid, "check_names", lambda recipes: None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("arguments", commands())
def test_commands_are_understood(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached: list[str] = []

    def execute(options: Any, values: Mapping[str, Any]) -> int:
        reached.extend(recipe.resolve(stage).student for stage in recipe.stages(values).values())
        return 0

    monkeypatch.setattr(cli, "_execute", execute)
    monkeypatch.setattr(cli, "_print", lambda *_: None)
    monkeypatch.setattr(api, "study", lambda name, **_: reached.extend(grid.expand(grid.load(name))))
    monkeypatch.setattr(api, "evaluate", lambda model, **_: reached.append(model))
    monkeypatch.setattr(api, "evaluate_tasks", lambda model, tasks, **_: reached.append(model) or {"rows": []})
    monkeypatch.setattr(
        api, "robustness", lambda models, *, corruptions, **_: reached.extend([*models, *parse(corruptions)])
    )
    monkeypatch.setattr(report, "report", lambda folder: reached.append(str(folder)) or [folder])
    monkeypatch.setattr(comparison, "compare", lambda models, **_: reached.extend(models))
    monkeypatch.setattr(stores, "build", lambda made, **_: reached.append(made.student))
    for action in ("listed", "verify"):
        monkeypatch.setattr(stores, action, lambda store: reached.append(str(store)))
    monkeypatch.setattr(stores, "remove", lambda store, keys: reached.extend(keys))
    assert cli.main(arguments) == 0, capsys.readouterr().err
    assert reached or arguments[0] == "show"


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_resolve(text: str) -> None:
    for stage in recipe.stages(yaml.safe_load(text)).values():
        recipe.resolve(stage)


@pytest.mark.parametrize("text", blocks("yaml study"))
def test_studies_expand(text: str) -> None:
    assert grid.expand(yaml.safe_load(text))


@pytest.mark.parametrize("text", blocks("python run"))
def test_python_runs(text: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", [block for block in blocks("python") if block.values[0].startswith("# examples/")])
def test_shown_files_are_the_files(text: str) -> None:
    name, _, rest = text.partition("\n")
    assert rest == (ROOT / name.removeprefix("# ")).read_text()


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_is_documented(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    assert [key for key in signature(METHODS[name]).parameters.values()
            if key.kind is key.KEYWORD_ONLY and f"`{key.name}`" not in page] == []  # fmt: skip


CODE = re.compile(r"^\|[^\n]*\| (?:loss|equation) \| code[^\n]*\n((?:\|[^\n]*\n)+)", re.MULTILINE)


@pytest.mark.parametrize("name", METHODS)
def test_code_named_beside_equations_exists(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    cells = [row.split(" | ")[-1] for rows in CODE.findall(page) for row in rows.splitlines()[1:]]
    named = {word for cell in cells for code in re.findall(r"`([^`]+)`", cell) for word in code.split(": ")}
    files = {one for one in {*named, *re.findall(r"`(methods/\w+\.py)", page)} if one.endswith(".py")}
    sources = {file: file.read_text() for file in ROOT.glob("src/osmose/**/*.py")}
    assert files | named
    assert [one for one in files if not any(str(file).endswith(f"/{one}") for file in sources)] == []
    there = set(re.findall(r"(?:def|class) (\w+)", "\n".join(sources.values())))
    assert {part for one in named - files for part in one.split(".")} - there == set()


ROW = re.compile(r"^\| ((?:`[\w.]+`(?:, )?)+) \| ([^|]+) \|", re.MULTILINE)


def defaults(cls: type) -> dict[str, Any]:
    """Of a method's settings and of those in its sections, "section.key", what is taken where none is given."""
    given = {key.name: key.default for key in signature(cls).parameters.values() if key.kind is key.KEYWORD_ONLY}
    sections = {name: vars(value) for name, value in given.items() if is_dataclass(value)}
    return given | {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}


def written(value: Any) -> str:
    """A default as pages write it."""
    if isinstance(value, tuple):
        return ", ".join(map(written, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_what_the_methods_page_says(name: str) -> None:
    page, known = (ROOT / "docs" / "methods" / f"{name}.md").read_text(), defaults(METHODS[name])
    compared = {}
    for keys, cell in ROW.findall(page):
        names = re.findall(r"[\w.]+", keys)
        inner = re.findall(r"`(\w+)` ([^,]+)", cell)
        if not all(isinstance(known.get(key), bool | int | float | str | tuple) for key in names):
            names, told = [f"{names[0]}.{key}" for key, _ in inner], [value for _, value in inner]
        else:
            told = [cell] if len(names) == 1 else cell.split(", ")
        if names and all(key in known for key in names):
            compared |= {key: (value.strip(), written(known[key])) for key, value in zip(names, told, strict=True)}
    assert compared
    assert {key: pair for key, pair in compared.items() if pair[0] != pair[1]} == {}


def test_tests_named_in_the_composition_matrix_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "design.md").read_text()))
    there = {
        name for file in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert named
    assert named - there == set()


def test_code_named_in_the_design_exists() -> None:
    """Files, and what is said to be in a module or class."""
    page = (ROOT / "docs" / "design.md").read_text()
    sources = {file: file.read_text() for file in ROOT.glob("src/osmose/**/*.py")}
    files = {one for one in re.findall(r"`([\w/]+\.py)`", page) if not one.startswith("tests/")}
    assert [one for one in files if not any(str(file).endswith(f"/{one}") for file in sources)] == []
    modules = {file.stem: text for file, text in sources.items() if file.parent.name == "osmose"}
    classes = {name: text for text in sources.values() for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}
    named = {pair for pair in re.findall(r"`(\w+)\.(\w+)`", page) if pair[0] in modules | classes and pair[1] != "py"}
    named -= {("recipe", "yaml")}
    assert len(named) > 5
    missing = [
        pair for pair in named if not re.search(rf"(def |class ){pair[1]}\b|\b{pair[1]}:", (modules | classes)[pair[0]])
    ]
    assert missing == []
