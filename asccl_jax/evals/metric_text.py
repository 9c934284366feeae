"""The evaluation table as aligned text and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asccl_jax.evals.contrasts import CONTRASTS, contrast
from asccl_jax.evals.metric_table import Leader, RowSummary, Table, demo_bars, verdict
from asccl_jax.evals.statistics import Interval, interval_note

__all__ = [
    "CLEAR",
    "Grid",
    "align",
    "bar_grids",
    "describe",
    "learning_grids",
    "markdown",
    "questions",
    "speech_grids",
    "text",
]

CLEAR = " *"
"""Ending of a lead that excludes zero."""

VIEWS = ("face", "stages 2+3", "stage 3", "mouth", "brow")


class Grid(NamedTuple):
    """A table ready to be set: a title, one line of explanation, headings and cells."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def learning_grids(table: Table) -> tuple[Grid, ...]:
    """Returns what was learned: loss, retrieval and similarity, by stage, speaker and emotion."""
    return _filled(
        _learning(table),
        _by_label("Total NCE by speaker", {row.name: row.speakers for row in table.rows}),
        _by_label("Total NCE by emotion", {row.name: row.emotions for row in table.rows}),
    )


def speech_grids(table: Table) -> tuple[Grid, ...]:
    """Returns what the rows tell apart, and which is best at it."""
    return _filled(_leaders(table), _ratios(table), _orders(table), _excesses(table))


def bar_grids(table: Table) -> tuple[Grid, ...]:
    """Returns the bars of the demo recipe, where they apply."""
    return _filled(_bars(table))


def _filled(*grids: Grid) -> tuple[Grid, ...]:
    return tuple(grid for grid in grids if grid.rows)


def text(table: Table) -> str:
    """Returns all grids as aligned text, ending with the verdict."""
    blocks = [
        "\n".join(filter(None, (grid.title, grid.note, "", align(grid.headings, grid.rows))))
        for grid in _all_grids(table)
    ]
    return "\n\n".join([describe(table), *blocks, verdict(table)]) + "\n"


def markdown(table: Table) -> str:
    """Returns all grids as a Markdown document."""
    blocks = [f"# Metric evaluation\n\n{describe(table)}\n\n{verdict(table)}"]
    for grid in _all_grids(table):
        lines = [_markdown_line(grid.headings), _markdown_line(["---"] * len(grid.headings))]
        lines += [_markdown_line(row) for row in grid.rows]
        blocks.append(f"## {grid.title}\n\n{grid.note}\n\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _all_grids(table: Table) -> tuple[Grid, ...]:
    return (*learning_grids(table), *_filled(questions(table)), *speech_grids(table), *bar_grids(table))


def align(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns cells in columns: the first to the left, the others to the right.

    >>> print(align(("row", "x"), [("a", "1"), ("long", "10")]))
    row    x
    a      1
    long  10
    """
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def describe(table: Table) -> str:
    """Returns in one sentence what was compared."""
    kind = "controlled comparisons" if table.controlled else "comparisons derived from aligned pairs"
    return f"{table.groups} queries and {sum(table.conditions.values())} {kind}."


def questions(table: Table) -> Grid:
    """Returns what each comparison asks, and of how many queries."""
    rows = tuple(
        (entry.title, entry.question, str(results[0].paired.count))
        for entry in CONTRASTS
        if (results := [found for row in table.rows if (found := row.result(entry.name, "face"))])
    )
    return Grid("The comparisons", "", ("comparison", "what it asks", "queries"), rows)


def _learning(table: Table) -> Grid:
    rows = tuple(
        (
            row.name,
            _figure(row.total, 2),
            *(f"{stage.nce:.3f}" for stage in row.stages),
            *(f"{stage.top1:.3f}" for stage in row.stages),
            *(f"{stage.gap:.2f}" for stage in row.stages),
        )
        for row in table.rows
        if row.total is not None
    )
    measures = [f"{name} {stage}" for name in ("NCE", "top-1", "gap") for stage in range(1, 5)]
    note = (
        f"Matched pairs, {interval_note(row.total for row in table.rows)}. NCE: contrastive loss, summed over stages"
        " and by stage; top-1: share of local changes whose nearest counterpart is the right one; gap: cosine of"
        " corresponding minus other changes."
    )
    return Grid("Loss and retrieval by stage", note, ("row", "total NCE [95 %]", *measures), rows)


def _by_label(title: str, figures: Mapping[str, Mapping[str, Interval]]) -> Grid:
    labels = sorted({label for found in figures.values() for label in found})
    rows = tuple(
        (name, *(_figure(found.get(label), 2) for label in labels)) for name, found in figures.items() if found
    )
    over = interval_note(found.get(label) for found in figures.values() for label in labels)
    return Grid(title, f"Matched pairs, {over}.", ("row", *labels), rows if len(labels) > 1 else ())


def _ratios(table: Table) -> Grid:
    lines = [
        (entry, view)
        for entry in CONTRASTS
        for view in (VIEWS if entry.name == "speech" else ("face", "mouth"))
        if any(row.result(entry.name, view) for row in table.rows)
    ]
    rows = tuple((entry.title, view, *(_ratio(row, entry.name, view) for row in table.rows)) for entry, view in lines)
    over = interval_note(
        found.ratio for row in table.rows for entry, view in lines if (found := row.result(entry.name, view))
    )
    note = f"Mean loss where it should be higher over mean loss where it should be lower, {over}."
    return Grid("Loss ratios", note, ("comparison", "where", *(row.name for row in table.rows)), rows)


def _orders(table: Table) -> Grid:
    rows = []
    for entry in CONTRASTS:
        for view in ("face", "mouth"):
            results = [row.result(entry.name, view) for row in table.rows]
            if any(results):
                cells = (f"{r.paired.value:.3f} / {r.auc.value:.3f}" if r else "" for r in results)
                rows.append((entry.title, view, *cells))
    note = "Share of queries ordered rightly / area under the ROC curve over all images; 0.5 is chance."
    return Grid("Orderings", note, ("comparison", "where", *(row.name for row in table.rows)), tuple(rows))


def _excesses(table: Table) -> Grid:
    rows = tuple(
        (row.name, _figure(row.mouth_over_brow, 2), _figure(row.mouth_over_emotion, 2))
        for row in table.rows
        if row.mouth_over_brow is not None
    )
    over = interval_note(one for row in table.rows for one in (row.mouth_over_brow, row.mouth_over_emotion))
    note = f"Loss that changed speech adds to a neutral key, over what changed brows or a full emotion add; {over}."
    return Grid("Speech against other changes", note, ("row", "speech / brows", "speech / emotion"), rows)


def _leaders(table: Table) -> Grid:
    found = {(leader.contrast, leader.view, leader.measure): leader for leader in table.leaders}
    rows = tuple(
        (
            contrast(name).title,
            view,
            *_leader_cells(found[name, view, "paired"]),
            *_leader_cells(found[name, view, "auc"]),
        )
        for name, view in dict.fromkeys((leader.contrast, leader.view) for leader in table.leaders)
    )
    headings = (
        "comparison",
        "where",
        "most queries in order",
        "lead [95 %]",
        "largest area under curve",
        "lead [95 %]",
    )
    note = (
        "The trained metric against the untrained network and plain pixels, on the same queries,"
        f" {interval_note(leader.difference for leader in table.leaders)}; a star marks a lead whose interval excludes"
        " zero. Where the best is at or below 0.5, no row gets the order right."
    )
    return Grid("Which row wins where", note, headings, rows)


def _leader_cells(leader: Leader) -> tuple[str, str]:
    return f"{leader.first} {leader.value:.2f}", _figure(leader.difference, 2) + (CLEAR if leader.clear else "")


def _bars(table: Table) -> Grid:
    rows = tuple(
        (
            bar.title,
            f"{bar.value:.3f}",
            f"{'at most' if bar.at_most else 'at least'} {bar.bound:.3f}",
            "met" if bar.met else "MISSED",
        )
        for bar in demo_bars(table)
    )
    note = "Set for `configs/asccl.py:demo` on synthetic heads; other recipes and data have other figures."
    return Grid("Bars of the demo recipe", note, ("bar", "measured", "asked", "verdict"), rows)


def _ratio(row: RowSummary, name: str, view: str) -> str:
    result = row.result(name, view)
    return _figure(result.ratio, 2) if result else ""


def _figure(interval: Interval | None, digits: int) -> str:
    return "" if interval is None else interval.text(digits)
