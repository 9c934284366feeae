"""Figures of an evaluation of videos: metrics by emotion, mouths over time, frames beside their source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from asccl_jax.evals.bootstrap import Interval
from asccl_jax.evals.figure_style import INK, MUTED, ROW_COLOURS, new_figure, quiet, title
from asccl_jax.evals.video_evaluation import ShownClip, VideoEvaluation
from asccl_jax.evals.video_grids import measured
from asccl_jax.evals.video_metrics import Metric
from asccl_jax.evals.video_tables import by_emotion, overall

__all__ = ["emotion_panels", "opening_curves"]

_COLUMNS = 3
_REAL = "#2a9d8f"


def emotion_panels(evaluation: VideoEvaluation) -> Figure:
    """Returns a panel a metric, a bar an emotion with its interval; a line where real clips are."""
    metrics = [one for one, _ in measured(evaluation)]
    lines = -(-len(metrics) // _COLUMNS)
    figure = new_figure(11.0, 1.95 * lines + 0.3)
    grid = figure.subplots(lines, _COLUMNS, squeeze=False)
    for axes, one in zip(grid.ravel(), metrics, strict=False):
        figures = by_emotion(one, evaluation.clips, evaluation.pools)
        _bars(axes, one, figures)
        real = None if one.pooled else overall(one, evaluation.real, ())
        if real is not None:
            axes.axhline(real.value, color=_REAL, linewidth=1.4, linestyle=(0, (4, 2)), label="real clips")
            axes.legend(fontsize=7, frameon=False, loc="upper right", handlelength=1.8)
        axes.margins(y=0.22)
        if min((shown.value for shown in figures.values()), default=0.0) >= 0:
            axes.set_ylim(bottom=0)
    for axes in grid.ravel()[len(metrics) :]:
        axes.set_visible(False)
    return figure


def opening_curves(shown: Sequence[ShownClip]) -> Figure | None:
    """Returns the course of mouths, a panel a clip; None where no clip has landmarks."""
    clips = [clip for clip in shown if len(clip.openings) > 1]
    if not clips:
        return None
    columns = min(2, len(clips))
    lines = -(-len(clips) // columns)
    figure = new_figure(11.0, 1.85 * lines + 0.5)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, clip in zip(grid.ravel(), clips, strict=False):
        for name, (times_s, opening) in clip.openings.items():
            own = name != "source"
            axes.plot(
                times_s,
                opening,
                color=ROW_COLOURS["trained"] if own else INK,
                linewidth=1.6 if own else 1.2,
                linestyle="-" if own else (0, (4, 2)),
                label=name,
            )
        quiet(axes)
        title(axes, clip.clip)
        axes.set_ylim(bottom=0)
    for axes in grid.ravel()[len(clips) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize=8, color="#56616d")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure


def _bars(axes: object, one: Metric, figures: dict[str, Interval]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    places = np.arange(len(figures))
    values = np.array([figure.value for figure in figures.values()])
    ends = np.array([[figure.low, figure.high] for figure in figures.values()])
    axes.bar(places, values, width=0.62, color=ROW_COLOURS["trained"], alpha=0.85)
    known = np.array([figure.known for figure in figures.values()])
    if known.any():
        sizes = np.abs(ends[known] - values[known, None]).T
        axes.errorbar(places[known], values[known], yerr=sizes, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    axes.set_xticks(places)
    axes.set_xticklabels(list(figures), fontsize=8)
    axes.set_xlim(-0.6, max(len(figures), 3) - 0.4)
    quiet(axes)
    axes.tick_params(axis="x", length=0)
    if min(values, default=0.0) < 0 < max(values, default=0.0):
        axes.axhline(0, color=MUTED, linewidth=0.8)
    title(axes, f"{one.title} {one.arrow}")
