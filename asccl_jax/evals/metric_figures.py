"""Plots of numbers: learning curves, similarities before and after, loss ratios, losses query by query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asccl_jax.evals.contrasts import CONTRASTS
from asccl_jax.evals.figure_style import INK, MUTED, ROW_COLOURS, STAGE_COLOURS, new_figure, quiet, row_colours, title
from asccl_jax.evals.history import History, series, smoothed
from asccl_jax.evals.metric_table import RowSummary, Table

__all__ = ["learning_curves", "ordering", "ratios", "similarity"]


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
