"""The kernel of all reports: page, tables, strips of frames, cards of a training."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from asccl_jax.data.frames import strip
from asccl_jax.evals.figure_style import INK, new_figure, png
from asccl_jax.evals.metric_text import CLEAR, Grid, align
from asccl_jax.metrics_file import read_summary
from asccl_jax.work import write_atomically

__all__ = [
    "Card",
    "Film",
    "History",
    "Page",
    "Picture",
    "Section",
    "conclusion",
    "effort_card",
    "input_advice",
    "json_text",
    "run_grids",
    "series",
    "settings_section",
    "smoothed",
    "strip_figure",
    "write_page",
]


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


# Where the time of a training run went, by phase and by process: tables for the terminal and for the report.

_LATE_INPUT = 0.2
"""Share of the time of training from which waiting for input is worth a word."""

_GIB = 2**30


def run_grids(summary: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Returns the tables of a run's `summary.json`."""
    seconds = summary["seconds"]
    total = sum(seconds.values())
    phases = [(name.replace("_", " "), spent) for name, spent in seconds.items()]
    rows = tuple((name, f"{spent:.1f}", _percent(spent / total if total else 0.0)) for name, spent in phases)
    steps = summary["step"] - summary["first_step"]
    start = f"attempt {attempt}" if (attempt := summary.get("attempt", 1)) > 1 else "this start"
    note = f"{_counted(steps, 'step')} of {start} at {summary['examples_per_s']:.1f} {summary['unit']}s/s"
    note += f"; {_counted(summary['checkpoints'], 'checkpoint')} written."
    headings = ("process", "host", "step", "95 % of steps", "input wait", "host memory", "device memory")
    return (
        Grid("Where the time went", note, ("phase", "seconds", "share"), (*rows, ("all", f"{total:.1f}", ""))),
        Grid("Processes", input_advice(summary), headings, tuple(map(_process_row, summary["processes"]))),
    )


def input_advice(summary: Mapping[str, Any]) -> str:
    """Returns what to do where training waits for its input; nothing where it does not."""
    latest = max(summary["processes"], key=lambda figures: figures["input_share"])
    if latest["input_share"] <= _LATE_INPUT:
        return ""
    where = f" (process {latest['process']}, {latest['host']})" if len(summary["processes"]) > 1 else ""
    threads = summary["input_threads"]
    cure = "the processor is too slow or too busy for it."
    if threads is not None:
        cure = f"raise --config.data.threads (now {threads}) if cores are idle, or put the records on faster storage."
    return f"Training waits for its input for {_percent(latest['input_share'])} of its time{where}: {cure}"


def conclusion(summary: Mapping[str, Any], workdir: Path, report: str) -> str:
    """Returns what a finished run prints: how far it came, the tables, and where everything lies.

    Args:
      summary: The run's `summary.json`.
      workdir: Folder of the run.
      report: Where the report is, or why there is none.
    """
    trained_s = sum(spent for phase, spent in summary["seconds"].items() if phase != "reporting")
    minutes, seconds = divmod(round(trained_s), 60)
    speed = f" at {summary['steps_per_s']:.3g} steps/s" if summary["steps_per_s"] else ""
    best_step, score = summary["best_step"], summary["best_score"]
    best = f" (step {best_step}, held-out score {score:.3f})" if best_step else ""
    grids = run_grids(summary) if summary["step"] > summary["first_step"] else ()
    tables = "".join(
        "\n".join(filter(None, (f"\n{grid.title}", grid.note, align(grid.headings, grid.rows)))) + "\n"
        for grid in grids
    )
    return (
        f"trained to step {summary['step']} in {minutes} min {seconds} s{speed}\n{tables}"
        + ("\n" if tables else "")
        + f"report: {report}\nbest:   {workdir / 'best'}{best}\nlast:   {workdir / 'last'}\n"
    )


def _process_row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    device = figures["device_peak_bytes"]
    return (
        str(figures["process"]),
        figures["host"],
        f"{figures['step_s']:.3f} s",
        f"{figures['step_p95_s']:.3f} s",
        _percent(figures["input_share"]),
        f"{figures['host_peak_bytes'] / _GIB:.2f} GiB",
        "-" if device is None else f"{device / _GIB:.2f} GiB",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


# The scalars that a run logged, as series over its steps.

History: TypeAlias = Sequence[Mapping[str, int | float]]
"""Lines of scalars, each with its "step"."""


def series(history: History, name: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the steps at which a scalar was logged, and its values."""
    lines = [line for line in history if name in line]
    return np.array([line["step"] for line in lines], np.float64), np.array([line[name] for line in lines], np.float64)


def smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns a centred running mean over a twentieth of the run; the window shrinks at both ends."""
    half = max(len(values) // 40, 1)
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


# What the reports of all tasks say of a training run: how long it took, and its recipe.


def effort_card(history: History, config: Mapping[str, Any], seconds: float | None, *, unit: str) -> Card:
    """Returns how long was trained.

    Args:
      history: Lines of `metrics.jsonl`.
      config: The recipe, with `batch_size` and `seed`.
      seconds: Wall time, if known.
      unit: What an example is called.
    """
    speeds = [value for line in history for name, value in line.items() if name == f"speed/{unit}s_per_s"]
    steps = int(max((line["step"] for line in history), default=0))
    time = f"{seconds / 60:.1f} minutes; " if seconds is not None else ""
    speed = f" at {speeds[-1]:.1f} {unit}s a second" if speeds else ""
    plural = "" if config["batch_size"] == 1 else "s"
    meaning = f"{time}{config['batch_size']} {unit}{plural} a step{speed}; seed {config['seed']}."
    return Card("training", f"{steps:,} steps", meaning)


def settings_section(workdir: Path, config: Mapping[str, Any]) -> Section:
    """Returns where the run's time went, and every entry of its recipe that was set."""
    summary = read_summary(workdir)
    times = run_grids(summary) if summary is not None else ()
    return Section("Run and settings", grids=(*times, _settings_grid(config)))


def _settings_grid(config: Mapping[str, Any]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}.{inner}", json.dumps(entry)) for inner, entry in value.items() if entry is not None]
        elif value is not None:
            rows.append((name, json.dumps(value)))
    return Grid("Recipe", "Entries left to their defaults by `compat` are not listed.", ("entry", "value"), tuple(rows))


# Rows of frames as a figure, each row with its heading at the left.

_DPI = 110
_HEADINGS = 1.2
"""Room for headings, inches."""


def strip_figure(rows: Sequence[tuple[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]]], *, wide: float = 10.0) -> Figure:
    """Returns rows of frames, one below the other.

    Args:
      rows: Heading and frames of each row; as many in each, all of one size.
      wide: Width of a row, inches.
    """
    image = strip([frames for _, frames in rows])
    height, width = image.shape[:2]
    figure = new_figure(wide + _HEADINGS, wide * height / width + 0.1, dpi=_DPI)
    axes = figure.subplots()
    axes.imshow(image, interpolation="bicubic")
    axes.set_xticks([])
    each = height / len(rows)
    axes.set_yticks([each * (number + 0.5) for number in range(len(rows))])
    axes.set_yticklabels([name for name, _ in rows], fontsize=8.5, color=INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure
