"""Plots of numbers: learning curves, similarities before and after, loss ratios, losses query by query."""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.evals.contrasts import CONTRASTS
from asccl_jax.evals.figure_style import (
    INK,
    MUTED,
    NEARLY,
    RIGHT,
    ROW_COLOURS,
    STAGE_COLOURS,
    WRONG,
    new_figure,
    quiet,
    row_colours,
    show_image,
    title,
)
from asccl_jax.evals.metric_evaluation import Candidate, Evaluation
from asccl_jax.evals.metric_scores import evaluation_locations, evaluation_metric
from asccl_jax.evals.metric_table import RowSummary, Table
from asccl_jax.evals.report import History, series, smoothed
from asccl_jax.losses.contrastive import disparity_weights, neighbour_disparities
from asccl_jax.models.correlation import prepare_images
from asccl_jax.sampling import NEIGHBOUR_OFFSETS, location_region, map_sizes
from asccl_jax.weights import FrozenMetric

__all__ = [
    "Look",
    "Picks",
    "attention_figures",
    "example_figure",
    "example_strip",
    "learning_curves",
    "look_at_pairs",
    "ordering",
    "pick_panels",
    "ratios",
    "similarity",
    "weight_panels",
]


def learning_curves(history: History, *, chance: float) -> Figure:
    """Returns training loss, held-out loss, retrieval and similarity gap over the steps.

    Args:
      history: Lines of `metrics.jsonl`.
      chance: Total NCE of embeddings that say nothing.
    """
    figure = new_figure(11.0, 2.9)
    loss, held_out, top1, gap = figure.subplots(1, 4)
    steps, values = series(history, "metric/nce")
    loss.plot(steps, values, color=ROW_COLOURS["trained"], alpha=0.25, linewidth=0.8)
    loss.plot(steps, smoothed(values), color=ROW_COLOURS["trained"], linewidth=1.8)
    title(loss, "Training batches: total NCE")
    steps, values = series(history, "eval/nce")
    held_out.plot(steps, values, color=ROW_COLOURS["trained"], marker="o", markersize=4, linewidth=1.8)
    held_out.axhline(chance, color=MUTED, linestyle=":", linewidth=1.2)
    _note(held_out, chance, f"chance {chance:.1f}")
    if len(values) and steps[0] == 0:
        held_out.axhline(values[0], color=MUTED, linestyle="--", linewidth=1.2)
        _note(held_out, values[0], f"untrained {values[0]:.1f}")
    title(held_out, "Held-out pairs: total NCE")
    for axes, name, heading in ((top1, "top1", "Held-out: top-1 retrieval"), (gap, "gap", "Held-out: similarity gap")):
        for stage, colour in enumerate(STAGE_COLOURS, start=1):
            steps, values = series(history, f"eval/{name}_stage{stage}")
            axes.plot(steps, values, color=colour, marker="o", markersize=4, linewidth=1.8, label=f"stage {stage}")
        axes.set_ylim(0, 1.04)
        title(axes, heading)
    top1.legend(fontsize=7.5, frameon=False, loc="best")
    for axes in (loss, held_out, top1, gap):
        quiet(axes)
        axes.set_xlabel("step", fontsize=8, color="#56616d")
    for axes in (loss, held_out):
        axes.set_ylim(bottom=0)
    return figure


def similarity(before: RowSummary, after: RowSummary) -> Figure:
    """Returns the cosines of corresponding and other local changes, per stage, before and after training."""
    figure = new_figure(8.0, 2.9)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, row, heading in zip(panels, (before, after), ("before training", "after training"), strict=True):
        places = np.arange(len(row.stages))
        for shift, label, values, colour in (
            (-0.19, "corresponding regions", [s.corresponding for s in row.stages], ROW_COLOURS["trained"]),
            (0.19, "other regions", [s.other for s in row.stages], "#c9d2db"),
        ):
            bars = axes.bar(places + shift, values, width=0.36, color=colour, label=label)
            axes.bar_label(bars, fmt="%.2f", fontsize=7.5, color="#56616d", padding=2)
        axes.set_xticks(places, [f"stage {n + 1}" for n in places])
        quiet(axes)
        title(axes, heading)
    panels[0].set_ylim(min(0.0, *(s.other for s in (*before.stages, *after.stages))) * 1.2, 1.12)
    panels[0].set_ylabel("cosine", fontsize=8, color="#56616d")
    panels[1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def ratios(table: Table) -> Figure:
    """Returns the loss ratios of every comparison, row by row, with their intervals."""
    shown = [entry for entry in CONTRASTS if any(row.result(entry.name, "face") for row in table.rows)]
    figure = new_figure(9.0, 0.8 + 0.14 * len(shown) * (len(table.rows) + 1.4))
    axes = figure.subplots()
    colours = row_colours([row.kind for row in table.rows])
    height = len(table.rows) + 1.4
    for number, entry in enumerate(shown):
        for place, (row, colour) in enumerate(zip(table.rows, colours, strict=True)):
            result = row.result(entry.name, "face")
            if result is None:
                continue
            y = number * height + place
            label = row.name if number == 0 else None
            axes.plot([result.ratio.low, result.ratio.high], [y, y], color=colour, linewidth=2.6, alpha=0.45)
            axes.plot(result.ratio.value, y, "o", color=colour, markersize=5, label=label)
            axes.annotate(
                f"{result.ratio.value:.2f}",
                (result.ratio.high if result.ratio.known else result.ratio.value, y),
                (5, 0),
                textcoords="offset points",
                fontsize=7,
                color="#56616d",
                va="center",
            )
    axes.axvline(1, color=MUTED, linewidth=1, linestyle=":")
    axes.set_yticks([n * height + (len(table.rows) - 1) / 2 for n in range(len(shown))], [e.title for e in shown])
    axes.invert_yaxis()
    quiet(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.set_xlabel("loss where it should be higher / loss where it should be lower", fontsize=8, color="#56616d")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def ordering(table: Table) -> Figure:
    """Returns the share of queries ordered rightly, for the whole face and for the mouth."""
    shown = [entry for entry in CONTRASTS if any(row.result(entry.name, "face") for row in table.rows)]
    figure = new_figure(11.0, 0.9 + 0.16 * len(shown) * (len(table.rows) + 1.2))
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    colours = row_colours([row.kind for row in table.rows])
    for axes, view, heading in zip(panels, ("face", "mouth"), ("whole face", "mouth only"), strict=True):
        _ordering_panel(axes, table, [entry.name for entry in shown], view, colours)
        title(axes, f"queries in the right order: {heading}")
    height = len(table.rows) + 1.2
    panels[0].set_yticks([n * height + (len(table.rows) - 1) / 2 for n in range(len(shown))], [e.title for e in shown])
    panels[0].invert_yaxis()
    panels[0].set_xlim(0, 1.08)
    handles = [
        panels[0].plot([], [], "s", color=c, label=row.name)[0] for row, c in zip(table.rows, colours, strict=True)
    ]
    panels[1].legend(handles=handles, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _ordering_panel(axes: Axes, table: Table, names: Sequence[str], view: str, colours: Sequence[str]) -> None:
    height = len(table.rows) + 1.2
    for number, name in enumerate(names):
        for place, (row, colour) in enumerate(zip(table.rows, colours, strict=True)):
            result = row.result(name, view)
            if result is None:
                continue
            y, share = number * height + place, result.paired
            axes.barh(y, share.value, height=0.82, color=colour, alpha=0.85)
            axes.plot([share.low, share.high], [y, y], color=INK, linewidth=1.1)
            axes.annotate(
                f"{share.value:.2f}",
                (share.high if share.known else share.value, y),
                (4, 0),
                textcoords="offset points",
                fontsize=7,
                color="#56616d",
                va="center",
            )
    axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=":")
    quiet(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelsize=8.5)


def _note(axes: Axes, height: float, text: str) -> None:
    axes.annotate(
        text,
        (0.98, height),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        fontsize=7.5,
        color="#56616d",
    )


# What a metric sees in single faces: its disparity weights all over, and which local change it takes for which.

_NEIGHBOURS = len(NEIGHBOUR_OFFSETS)


@dataclasses.dataclass(frozen=True)
class Picks:
    """For some local changes of one face, the most similar ones a metric finds in another.

    A change leads from a centre to one of its eight neighbours. Points are (row, column) as fractions of the image.

    Attributes:
      centres: Where each change starts in both images.
      neighbours: Where it leads to.
      picked_centres: Where the most similar change of the other image starts.
      picked_neighbours: Where that one leads to.
    """

    centres: Float[np.ndarray, "n 2"]
    neighbours: Float[np.ndarray, "n 2"]
    picked_centres: Float[np.ndarray, "n 2"]
    picked_neighbours: Float[np.ndarray, "n 2"]

    @property
    def right_place(self) -> Bool[np.ndarray, " n"]:
        """Whether each pick starts at the right centre."""
        return np.all(self.centres == self.picked_centres, axis=1)

    @property
    def right(self) -> Bool[np.ndarray, " n"]:
        """Whether each pick is the corresponding change."""
        return self.right_place & np.all(self.neighbours == self.picked_neighbours, axis=1)


@dataclasses.dataclass(frozen=True)
class Look:
    """How a metric looks at some pairs of faces.

    Attributes:
      weights: Per stage and query, the adaptive weight of each cell, 1..2: the mean over its eight disparities. Cells
        at the border, which are never centres, are NaN.
      picks: Per pair, the nearest neighbours of some local changes.
    """

    weights: tuple[Float[np.ndarray, "b _ _"], ...]
    picks: tuple[Picks, ...]


def look_at_pairs(
    metric: FrozenMetric,
    queries: UInt8[np.ndarray, "b h w 3"],
    keys: UInt8[np.ndarray, "b h w 3"],
    *,
    stage: int,
    count: int,
) -> Look:
    """Returns the weights all over the queries, and what the metric takes some of their local changes for in the keys.

    Args:
      metric: The metric.
      queries: Faces whose changes are looked up.
      keys: Faces in which they are looked for, among all changes that one draw of locations compares.
      stage: Stage of the changes, 0..3.
      count: Changes to look up, each at another centre.
    """
    metric = evaluation_metric(metric)
    sizes = map_sizes(metric.settings.image_size)
    locations = evaluation_locations(metric.settings, 1)[stage][0]
    weights, query, key = _see(metric, queries, keys, locations, stage=stage)
    centres = np.asarray(locations)
    chosen = _spread_out(centres, count)
    # Another direction at each centre: a stride of three visits all eight.
    looked_up = _NEIGHBOURS * chosen + (3 * np.arange(len(chosen))) % _NEIGHBOURS
    nearest = np.einsum("bpe,bqe->bpq", np.asarray(query)[:, looked_up], np.asarray(key)).argmax(axis=2)
    picks = tuple(
        Picks(*_ends(centres, looked_up, sizes[stage]), *_ends(centres, picked, sizes[stage])) for picked in nearest
    )
    return Look(tuple(_framed(*level) for level in zip(weights, sizes, strict=True)), picks)


@functools.partial(jax.jit, static_argnames="stage")
def _see(
    metric: FrozenMetric,
    queries: UInt8[Array, "b h w 3"],
    keys: UInt8[Array, "b h w 3"],
    centres: Int[Array, "n 2"],
    *,
    stage: int,
) -> tuple[tuple[Float[Array, "b _ _"], ...], Float[Array, "b p e"], Float[Array, "b p e"]]:
    """Weights of all cells inside the border of the queries' maps, and one stage's embeddings of queries and keys."""
    images = prepare_images(jnp.concatenate([queries, keys]), metric.settings)
    maps = metric.features(images)
    weights = []
    for features in (both[: len(queries)] for both in maps):
        first, side = location_region(features.shape[1], border="inside")
        cells = first + jnp.stack(jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij"), axis=-1)
        disparities = neighbour_disparities(features, cells.reshape(-1, 2))
        by_pair = disparity_weights(disparities, reduction=metric.settings.weight_reduction)
        weights.append(by_pair.reshape(len(queries), side, side, _NEIGHBOURS).mean(axis=-1))
    query, key = jnp.split(metric.embed(stage, neighbour_disparities(maps[stage], centres)), 2)
    return tuple(weights), query, key


def _framed(weights: Float[Array, "b s s"], size: int) -> Float[np.ndarray, "b t t"]:
    """Adds the border of a map, whose cells are never centres."""
    first, side = location_region(size, border="inside")
    border = (first, size - side - first)
    return np.pad(np.asarray(weights), ((0, 0), border, border), constant_values=np.nan)


def _spread_out(centres: Int[np.ndarray, "n 2"], count: int) -> Int[np.ndarray, " k"]:
    """Positions of centres that lie far from each other: each next one is the farthest from those before."""
    chosen = [0]
    while len(chosen) < min(count, len(centres)):
        distances = np.linalg.norm(centres[:, None] - centres[None, chosen], axis=2).min(axis=1)
        chosen.append(int(distances.argmax()))
    return np.array(chosen)


def _ends(
    centres: Int[np.ndarray, "n 2"], pairs: Int[np.ndarray, " k"], size: int
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
    start = centres[pairs // _NEIGHBOURS]
    end = start + np.array(NEIGHBOUR_OFFSETS)[pairs % _NEIGHBOURS]
    return (start + 0.5) / size, (end + 0.5) / size


# Pictures of faces: example comparisons, maps of the adaptive weights, picks of local changes.

FACE_DPI = 110
"""Faces are photographs: more pixels than this only make the page heavy."""

Image = UInt8[np.ndarray, "h w 3"]


def example_strip(columns: Sequence[tuple[str, Mapping[str, tuple[Image, str]]]]) -> Figure:
    """Returns faces in columns, each with a heading, and in rows of the same role, each with a caption below.

    Args:
      columns: Heading, and row name -> (face, caption); all with the same row names.
    """
    names = list(columns[0][1])
    figure = new_figure(0.9 + 1.45 * len(columns), 1.72 * len(names) + 0.2, dpi=FACE_DPI)
    grid = np.atleast_2d(figure.subplots(len(names), len(columns), squeeze=False))
    for column, (heading, faces) in enumerate(columns):
        for row, name in enumerate(names):
            axes = grid[row, column]
            image, caption = faces[name]
            show_image(axes, image)
            axes.set_xlabel(caption, fontsize=8, color="#56616d", labelpad=3)
            if row == 0:
                axes.set_title(heading, fontsize=8.5, color=INK, pad=5)
            if column == 0:
                axes.set_ylabel(name, fontsize=8.5, color=INK, labelpad=6)
    return figure


def weight_panels(image: Image, rows: Mapping[str, Sequence[Float[np.ndarray, "_ _"]]]) -> Figure:
    """Returns maps of the adaptive weights over a face, a stage a column.

    Args:
      image: The face.
      rows: Row heading -> weight maps of the four stages, NaN where no centre may lie.
    """
    figure = new_figure(10.5, 2.2 * len(rows) + 0.2, dpi=FACE_DPI)
    grid = figure.subplots(len(rows), 5, squeeze=False)
    highest = max(1.05, *(float(np.nanmax(weights)) for maps in rows.values() for weights in maps))
    shades = ScalarMappable(Normalize(1, highest), matplotlib.colormaps["inferno"])
    for axes_row, (heading, maps) in zip(grid, rows.items(), strict=True):
        show_image(axes_row[0], image)
        axes_row[0].set_ylabel(heading, fontsize=9, color=INK)
        for number, (axes, weights) in enumerate(zip(axes_row[1:], maps, strict=True), start=1):
            show_image(axes, np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8))
            axes.imshow(weights, extent=(0, 1, 1, 0), cmap=shades.cmap, norm=shades.norm, alpha=0.72)
            title(axes, f"stage {number}: mean {np.nanmean(weights):.2f}")
    bar = figure.colorbar(shades, ax=grid, shrink=0.75, pad=0.01)
    bar.ax.tick_params(labelsize=8, colors="#56616d")
    bar.set_label("weight of a region", fontsize=8, color="#56616d")
    bar.outline.set_visible(False)
    return figure


def pick_panels(pairs: Sequence[tuple[Image, Image, Picks, Picks]]) -> Figure:
    """Returns local changes of a neutral face and what was taken for them in the emotional one, before and after.

    Args:
      pairs: Neutral face, emotional face, picks before and picks after training.
    """
    figure = new_figure(10.5, 3.65 * len(pairs))
    grid = figure.subplots(len(pairs), 3, squeeze=False)
    for axes_row, (query, key, before, after) in zip(grid, pairs, strict=True):
        show_image(axes_row[0], query)
        title(axes_row[0], "neutral: local changes to find")
        for number, (start, end) in enumerate(zip(after.centres, after.neighbours, strict=True), start=1):
            _mark(axes_row[0], start, end, INK, number)
        for axes, picks, moment in ((axes_row[1], before, "before training"), (axes_row[2], after, "after training")):
            show_image(axes, key)
            title(axes, f"emotional, {moment}: {picks.right.sum()} of {len(picks.right)} right")
            _mark_picks(axes, picks)
    return figure


def _mark_picks(axes: Axes, picks: Picks) -> None:
    for i, (right, right_place) in enumerate(zip(picks.right, picks.right_place, strict=True)):
        colour = RIGHT if right else NEARLY if right_place else WRONG
        if not right_place:
            (row, column), (true_row, true_column) = picks.picked_centres[i], picks.centres[i]
            axes.plot([column, true_column], [row, true_row], color=WRONG, linewidth=0.9, alpha=0.7)
            axes.plot(true_column, true_row, "o", markersize=4, markerfacecolor="none", markeredgecolor="white")
        _mark(axes, picks.picked_centres[i], picks.picked_neighbours[i], colour, i + 1)


def _mark(axes: Axes, start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"], colour: str, number: int) -> None:
    """A numbered disc with a tick in the direction of the change, longer than the change itself to be seen."""
    direction = (end - start) / np.hypot(*(end - start))
    tip = start + 0.055 * direction
    axes.plot([start[1], tip[1]], [start[0], tip[0]], color="white", linewidth=3.4, solid_capstyle="round")
    axes.plot([start[1], tip[1]], [start[0], tip[0]], color=colour, linewidth=2.0, solid_capstyle="round")
    axes.plot(start[1], start[0], "o", markersize=10, color=colour, markeredgecolor="white", markeredgewidth=0.9)
    axes.annotate(
        str(number),
        (start[1], start[0]),
        color="white",
        fontsize=6.5,
        ha="center",
        va="center_baseline",
        fontweight="bold",
    )


# Pictures of one evaluation: which faces, maps and picks to show, and what to write under them.

SHOWN_CONDITIONS = ("matched", "small_speech_change", "other_speech", "other_identity_same_speech")
SHOWN_COLUMNS = 7
PICK_STAGE = 1
PICKS = 10
"""Local changes looked up at the second stage, whose sixteen centres fit a picture."""


def example_figure(evaluation: Evaluation, row_name: str) -> Figure:
    """Returns query faces above their key faces, each key with the loss that one row gives it."""
    lookup = evaluation.comparisons.lookup
    conditions = [name for name in SHOWN_CONDITIONS if name in lookup]
    groups = sorted(set.intersection(*(set(lookup[name]) for name in conditions)))
    losses = next(row for row in evaluation.rows if row.name == row_name).losses["face"]
    columns = []
    for group in evenly_spaced(groups, SHOWN_COLUMNS):
        records = {name: lookup[name][group] for name in conditions}
        matched = evaluation.comparisons.records[records["matched"]]
        faces = {"query": (_query(evaluation, matched), "neutral")}
        for name, position in records.items():
            record = evaluation.comparisons.records[position]
            faces[textwrap.fill(name.replace("_", " "), 14)] = (
                _key(evaluation, record),
                f"loss {losses[position]:.2f}",
            )
        columns.append((f"{matched.speaker}, {matched.emotion}", faces))
    return example_strip(columns)


def attention_figures(evaluation: Evaluation, before: Candidate | None, after: Candidate) -> dict[str, Figure]:
    """Returns "weights", the adaptive weights over a neutral face, and "picks", local changes found across emotions.

    Args:
      evaluation: Source of the faces: matched pairs a third and two thirds through the list.
      before: The untrained network; without it there are no picks.
      after: The trained one.
    """
    matched = [record for record in evaluation.comparisons.records if record.condition == "matched"]
    chosen = [matched[len(matched) * part // 3] for part in (1, 2)]
    queries, keys = (np.stack([side(evaluation, record) for record in chosen]) for side in (_query, _key))
    looks = {
        candidate.name: look_at_pairs(candidate.metric, queries, keys, stage=PICK_STAGE, count=PICKS)
        for candidate in (before, after)
        if candidate is not None
    }
    weights = {name: [stage[0] for stage in look.weights] for name, look in looks.items()}
    figures = {"weights": weight_panels(queries[0], weights)}
    if before is not None:
        picks = (looks[candidate.name].picks for candidate in (before, after))
        figures["picks"] = pick_panels(list(zip(queries, keys, *picks, strict=True)))
    return figures


def _query(evaluation: Evaluation, record: ComparisonRecord) -> Image:
    return evaluation.frames.image(record.query_clip, record.query_frame)


def _key(evaluation: Evaluation, record: ComparisonRecord) -> Image:
    return evaluation.frames.image(record.key_clip, record.key_frame)
