"""Pictures of faces: example comparisons, maps of the adaptive weights, picks of local changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from asccl_jax.evals.figure_style import INK, NEARLY, RIGHT, WRONG, new_figure, show_image, title
from asccl_jax.evals.metric_maps import Picks

__all__ = ["example_strip", "pick_panels", "weight_panels"]

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
