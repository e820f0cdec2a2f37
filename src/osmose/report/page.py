"""A page of tiles and sections, as one HTML file that needs nothing else."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2


@dataclass(frozen=True)
class Tile:
    """A number that is read first.

    Attributes:
        name: what it is.
        value: as it is shown.
        tone: "", "gained" or "lost".
    """

    name: str
    value: str
    tone: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing in the page's colours, or an image by its data URL."""

    svg: str = ""
    source: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Sample:
    """An image, its class, and what was said of it before and after."""

    source: str
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order: text, figures, samples, passages, a table, folded code.

    A passage is pieces of text, each with a tone: "", "gained" or "lost". Cells of a table that are `strong`, by row and column,
    are in bold; columns stand to the right, but for those that are not `numeric` where that is said; a `folded` table opens at a
    click.
    """

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    samples: Sequence[Sample] = ()
    passages: Sequence[Sequence[tuple[str, str]]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    strong: Collection[tuple[int, int]] = ()
    numeric: Sequence[bool] = ()
    folded: bool = False
    code: str = ""
    summary: str = field(default="show")


def page(title: str, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """The page's HTML; everything but drawings is escaped."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text())
    return template.render(title=title, subtitle=subtitle, tiles=tiles, sections=sections)
