"""A self-contained web page: a headline, figures in words, sections with pictures and tables."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from asccl_jax.data.atomic import write_atomically
from asccl_jax.evals.figure_style import png
from asccl_jax.evals.metric_text import CLEAR, Grid

__all__ = ["Card", "Film", "Page", "Picture", "Section", "json_text", "write_page"]

_TEMPLATE = "page.html.jinja"
_PROSE = ("what it asks", "what it is", "where", "from", "value", "why")
"""Headings of columns that hold words and are set to the left."""

_MARKS = {"met": "good", "MISSED": "bad"}
"""Cells that are coloured, and how."""


@dataclasses.dataclass(frozen=True)
class Card:
    """A number a person wants, and what it means in one sentence."""

    label: str
    value: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: the name of its PNG file without ending, what it shows, and the figure itself."""

    name: str
    caption: str
    figure: Figure


@dataclasses.dataclass(frozen=True)
class Film:
    """A video that plays in the page.

    Attributes:
      name: Of its file, without ending.
      caption: What it shows.
      content: An mp4 file, small enough to lie in the page.
      poster: A JPEG file that stands in its place until it plays.
      width: Of its frames, pixels.
    """

    name: str
    caption: str
    content: bytes
    poster: bytes
    width: int


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      title: Heading.
      text: Paragraph below it.
      pictures: Figures.
      grids: Tables.
      code: Lines to copy, or nothing.
      films: Videos, above the figures.
    """

    title: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    grids: tuple[Grid, ...] = ()
    code: str = ""
    films: tuple[Film, ...] = ()


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
      title: Name of the page.
      subtitle: What was run on what.
      verdict: What came of it, in a sentence or two.
      cards: Key figures.
      sections: The rest.
    """

    title: str
    subtitle: str
    verdict: str
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]


def json_text(content: Any) -> str:
    """Returns figures as a JSON document; numbers that are not finite, as unknown ends of intervals, are null.

    >>> json_text([1.0, float("nan")]).split()
    ['[', '1.0,', 'null', ']']
    """
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def write_page(directory: Path, page: Page, *, name: str = "report.html") -> Path:
    """Writes the page and, beside it, each of its pictures as a PNG; returns the page's path.

    The page holds its pictures and videos itself, so that it can be sent on alone and opens without a network.
    """
    directory.mkdir(parents=True, exist_ok=True)
    embedded = {}
    for picture in (picture for section in page.sections for picture in section.pictures):
        content = png(picture.figure)
        write_atomically(directory / f"{picture.name}.png", content)
        embedded[picture.name] = _embedded("image/png", content)
    for film in (film for section in page.sections for film in section.films):
        embedded[film.name] = _embedded("video/mp4", film.content)
        embedded[f"{film.name} poster"] = _embedded("image/jpeg", film.poster)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = directory / name
    template = environment.get_template(_TEMPLATE)
    write_atomically(path, template.render(page=page, embedded=embedded, prose=_PROSE, marks=_MARKS, clear=CLEAR))
    return path


def _embedded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(content).decode()
