"""The report on renderers: `scores.json`, `table.md` and a page with strips of frames beside the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asccl_jax.data.atomic import write_atomically
from asccl_jax.evals.bootstrap import Interval, interval_note
from asccl_jax.evals.metric_text import CLEAR, Grid, align
from asccl_jax.evals.renderer_evaluation import COPY, Evaluation, Row
from asccl_jax.evals.renderer_scores import DRIVEN_MEASURES, OWN_MEASURES, Measure, difference, summary
from asccl_jax.evals.report_page import Card, Page, Picture, Section, json_text, write_page
from asccl_jax.evals.strip_figure import strip_figure

__all__ = [
    "DIFFERENCES",
    "OWN_CLIPS",
    "evaluation_page",
    "own_grids",
    "to_dict",
    "to_text",
    "write_evaluation",
    "write_figures",
]

OWN_CLIPS = (
    "Held-out clips drawn from their own conditioning, frame by frame from an empty history, and compared with the"
    " frames themselves within the mask. The first frame has no history to draw on; the figures beside it are of those"
    " that have."
)
DIFFERENCES = "differences from the truth are three times as bright."

_DRIVEN = (
    "Held-out neutral clips drawn with the expression coefficients of the same performance in an emotion, and compared"
    " with the frames of that performance, moved to where the source's are aligned. A copy of the source has the"
    " right person, pose and light and the wrong expression: an edit must beat it around the mouth."
)


def write_evaluation(directory: Path, evaluation: Evaluation, *, told: str = "") -> Path:
    """Writes `scores.json`, `table.md`, `report.html` and its pictures; returns the page's path.

    Args:
      directory: Where to.
      evaluation: What to write.
      told: Whose clips were scored, in words.
    """
    path = write_page(directory, evaluation_page(evaluation, told))
    write_figures(directory, evaluation)
    return path


def write_figures(directory: Path, evaluation: Evaluation) -> None:
    """Writes `scores.json` and `table.md`."""
    write_atomically(directory / "scores.json", json_text(to_dict(evaluation)))
    write_atomically(directory / "table.md", _markdown(evaluation))


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Returns all figures: of every row, of its lead over the first, and of every clip."""
    first = evaluation.rows[0]
    rows = []
    for row in evaluation.rows:
        parts: dict[str, Any] = {"name": row.name, "source": row.source}
        for kind, measures in (("own", OWN_MEASURES), ("driven", DRIVEN_MEASURES)):
            scores, firsts = getattr(row, kind), getattr(first, kind)
            if not scores:
                continue
            parts[kind] = {
                "figures": {one.name: dataclasses.asdict(summary(scores, one.name)) for one in measures},
                "minus_first_row": {
                    one.name: dataclasses.asdict(difference(scores, firsts, one.name)) for one in measures
                },
                "clips": [dataclasses.asdict(score) for score in scores],
            }
        rows.append(parts)
    return {"image_size": evaluation.image_size, "probe_error_px": evaluation.probe_error, "rows": rows}


def to_text(evaluation: Evaluation) -> str:
    """Returns the grids as aligned text, ending with the verdict."""
    blocks = [
        "\n".join(filter(None, (grid.title, grid.note, "", align(grid.headings, grid.rows))))
        for grid in _grids(evaluation)
    ]
    return "\n\n".join([*blocks, _verdict(evaluation)]) + "\n"


def evaluation_page(evaluation: Evaluation, told: str = "") -> Page:
    """Returns the page of an evaluation, which says whose clips were scored."""
    own = tuple(
        Picture(f"own_{number}", f"{pictures.title}; {DIFFERENCES}", figure)
        for number, pictures in enumerate(evaluation.own_pictures)
        for figure in (strip_figure(pictures.rows),)
    )
    driven = tuple(
        Picture(
            f"driven_{number}", f"{pictures.title}: in each part of the clip where the true mouth is widest.", figure
        )
        for number, pictures in enumerate(evaluation.driven_pictures)
        for figure in (strip_figure(pictures.rows),)
    )
    sections = [Section("Clips drawn from their own conditioning", OWN_CLIPS, own, own_grids(evaluation))]
    if driven:
        sections.insert(0, Section("Manipulated clips", _DRIVEN, driven, _driven_grids(evaluation)))
    sources = Grid("Rows", "", ("row", "from"), tuple((row.name, row.source) for row in evaluation.rows))
    sections.append(Section("What was compared", told, grids=(sources,)))
    return Page(
        title="Renderer evaluation",
        subtitle=_subtitle(evaluation),
        verdict=_verdict(evaluation),
        cards=_cards(evaluation),
        sections=tuple(sections),
    )


def _markdown(evaluation: Evaluation) -> str:
    blocks = [f"# Renderer evaluation\n\n{_subtitle(evaluation)}\n\n{_verdict(evaluation)}"]
    for grid in _grids(evaluation):
        lines = [grid.headings, ["---"] * len(grid.headings), *grid.rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        blocks.append(f"## {grid.title}\n\n{grid.note}\n\n{table}")
    return "\n\n".join(blocks) + "\n"


def _subtitle(evaluation: Evaluation) -> str:
    first = evaluation.rows[0]
    driven = f", {len(first.driven)} driven by another performance" if first.driven else ""
    return f"{len(first.own)} held-out clips{driven}, {evaluation.image_size} x {evaluation.image_size} pixels."


def _verdict(evaluation: Evaluation) -> str:
    first, copy = evaluation.rows[0], evaluation.rows[-1]
    quality, detail = summary(first.own, "psnr"), summary(first.own, "ssim")
    words = [f"{first.name} gives held-out frames back with {quality.value:.1f} dB and an SSIM of {detail.value:.3f}."]
    if not first.driven:
        return words[0]
    lead = difference(copy.driven, first.driven, "mouth")
    words.append(
        f"Driven by another performance, its mouth error is {summary(first.driven, 'mouth').value:.1f} levels,"
        f" {_compared(lead)} that of a copy of the source; the copy's minus it: {lead.text(1)},"
        f" {interval_note([lead])}."
    )
    for row in evaluation.rows[1:-1]:
        gap = difference(row.driven, first.driven, "mouth")
        clear = "clearly" if gap.clear else "not clearly"
        words.append(f"{row.name}: {clear} {'above' if gap.value > 0 else 'below'} it, {gap.text(2)} levels.")
    return " ".join(words)


def _compared(lead: Interval) -> str:
    if not lead.clear:
        return "not clearly apart from"
    return "below" if lead.value > 0 else "ABOVE"


def _cards(evaluation: Evaluation) -> tuple[Card, ...]:
    first, copy = evaluation.rows[0], evaluation.rows[-1]
    begin, later = summary(first.own, "first_psnr").value, summary(first.own, "later_psnr").value
    cards = [
        Card("PSNR", f"{summary(first.own, 'psnr').value:.1f} dB", "Held-out frames from their own conditioning."),
        Card("SSIM", f"{summary(first.own, 'ssim').value:.3f}", "Of the same frames; 1 is equal."),
        Card("first frame", f"{begin:.1f} dB", f"With no history to draw on; those with one have {later:.1f} dB."),
    ]
    if first.driven:
        mouth, other = (summary(row.driven, "mouth").value for row in (first, copy))
        marks, far = (summary(row.driven, "landmarks").value for row in (first, copy))
        cards += [
            Card("mouth error", f"{mouth:.1f}", f"Levels of 0..255, manipulated; {COPY}: {other:.1f}."),
            Card(
                "landmark distance",
                f"{marks:.2f} px",
                f"Mouth, manipulated, of a 256-pixel face; {COPY}: {far:.2f}; the probe itself errs by"
                f" {evaluation.probe_error:.2f}.",
            ),
        ]
    return tuple(cards)


def _grids(evaluation: Evaluation) -> tuple[Grid, ...]:
    return (*_driven_grids(evaluation), *own_grids(evaluation))


def own_grids(evaluation: Evaluation) -> tuple[Grid, ...]:
    """Returns the tables on clips drawn from their own conditioning."""
    rows = [row for row in evaluation.rows if row.own]
    grids = [_overall("Own conditioning", "", rows, "own", OWN_MEASURES)]
    grids.append(_by("PSNR by speaker, dB", rows, "own", "speaker", OWN_MEASURES[0]))
    if len(rows) > 1:
        grids.append(_against_first("Own conditioning, differences", rows, "own", OWN_MEASURES))
    return tuple(grids)


def _driven_grids(evaluation: Evaluation) -> tuple[Grid, ...]:
    rows = [row for row in evaluation.rows if row.driven]
    if not rows:
        return ()
    sources = len({score.source for score in rows[0].driven})
    note = (
        f" {len(rows[0].driven)} manipulated clips of {sources} sources; those of one source share its speech, so that"
        " intervals over clips, where sources are too few, are on the narrow side. Distances are in pixels of a"
        f" 256-pixel face; on true held-out frames the probe errs by {evaluation.probe_error:.2f}."
    )
    return (
        _overall("Manipulated", note, rows, "driven", DRIVEN_MEASURES),
        _against_first("Manipulated, differences", rows, "driven", DRIVEN_MEASURES),
        _by("Mouth error by emotion, levels", rows, "driven", "emotion", DRIVEN_MEASURES[0]),
        _by("Landmark distance by emotion, px", rows, "driven", "emotion", DRIVEN_MEASURES[1]),
        _by("Mouth error by speaker, levels", rows, "driven", "speaker", DRIVEN_MEASURES[0]),
    )


def _overall(title: str, note: str, rows: Sequence[Row], kind: str, measures: Sequence[Measure]) -> Grid:
    figures = [[summary(getattr(row, kind), one.name) for one in measures] for row in rows]
    cells = tuple(
        (row.name, *(figure.text(one.digits) for figure, one in zip(found, measures, strict=True)))
        for row, found in zip(rows, figures, strict=True)
    )
    note = f"Means over clips, {interval_note(figure for found in figures for figure in found)}.{note}"
    return Grid(title, note, ("row", *(one.title for one in measures)), cells)


def _against_first(title: str, rows: Sequence[Row], kind: str, measures: Sequence[Measure]) -> Grid:
    first = getattr(rows[0], kind)
    cells = []
    for row in rows[1:]:
        leads = [(difference(getattr(row, kind), first, one.name), one.digits) for one in measures]
        cells.append((row.name, *(lead.text(digits) + (CLEAR if lead.clear else "") for lead, digits in leads)))
    over = interval_note(difference(getattr(row, kind), first, one.name) for row in rows[1:] for one in measures)
    note = (
        f"Each row minus {rows[0].name}, on the same clips, {over}; a star marks a difference whose interval excludes"
        " zero."
    )
    return Grid(title, note, ("row", *(one.title for one in measures)), tuple(cells))


def _by(title: str, rows: Sequence[Row], kind: str, label: str, measure: Measure) -> Grid:
    labels = list(dict.fromkeys(getattr(score, label) for score in getattr(rows[0], kind)))
    cells = []
    for row in rows:
        parts = [[score for score in getattr(row, kind) if getattr(score, label) == value] for value in labels]
        cells.append((row.name, *(f"{summary(part, measure.name).value:.{measure.digits}f}" for part in parts)))
    return Grid(title, "", ("row", *labels), tuple(cells))
