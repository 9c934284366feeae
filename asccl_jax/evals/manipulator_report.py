"""The report on edited coefficients: `scores.json`, `table.md` and a page with curves, confusions and drawn heads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asccl_jax.data.atomic import write_atomically
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.data.tracks import TrueDelivery, has_truth, read_truth
from asccl_jax.evals.bootstrap import Interval, interval_note
from asccl_jax.evals.manipulator_evaluation import COPY, Candidate, Evaluation, Row, evaluate
from asccl_jax.evals.manipulator_figures import (
    coefficient_curves,
    confusion_panels,
    emotion_panels,
    face_strips,
    learning_curves,
)
from asccl_jax.evals.manipulator_scores import MEASURES, REQUESTED, Measure, confusion, difference, summary
from asccl_jax.evals.metric_text import CLEAR, Grid, align
from asccl_jax.evals.report_page import Card, Page, Picture, Section, json_text, write_page
from asccl_jax.evals.training_cards import effort_card, settings_section
from asccl_jax.geometry.head_model import HEAD_NAME, load_head_model
from asccl_jax.metrics_file import METRICS_FILE, read_metrics
from asccl_jax.saved_manipulator import load_manipulator

__all__ = ["EMOTION_BAR", "JAW_BAR", "to_dict", "to_text", "write_evaluation", "write_training_report"]

CLIPS = 12
"""Held-out clips in the report of a training run."""

EMOTION_BAR = 0.8
JAW_BAR = 0.9

_CURVE_EMOTIONS = ("angry", "happy", "surprised")
_SHOWN = ("hits", "jaw_correlation", "mouth_error_mm", "mouth_motion_error_mm")


def write_evaluation(directory: Path, evaluation: Evaluation, *, told: str = "") -> Path:
    """Writes `scores.json`, `table.md`, `report.html` and its pictures; returns the page's path.

    Args:
      directory: Where to.
      evaluation: What to write.
      told: Whose clips were scored, in words.
    """
    path = write_page(directory, _page(evaluation, told))
    _write_figures(directory, evaluation)
    return path


def _write_figures(directory: Path, evaluation: Evaluation) -> None:
    write_atomically(directory / "scores.json", json_text(to_dict(evaluation)))
    write_atomically(directory / "table.md", _markdown(evaluation))


def write_training_report(workdir: Path, tracks: Path, *, seconds: float | None = None, limit: int = CLIPS) -> Path:
    """Writes `report/` of a finished training run: its curves and, where the tracks have a truth, its figures.

    Args:
      workdir: Folder of the run, with `config.json`, `metrics.jsonl` and `best/`.
      tracks: Tracks of the run.
      seconds: Wall time of the training, if known.
      limit: Most held-out clips to edit.

    Returns:
      Path of the page.

    Raises:
      InputError: The tracks or the manipulator are missing or broken.
    """
    history = read_metrics(workdir / METRICS_FILE)
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    evaluation = _evaluated(workdir, tracks, limit) if has_truth(tracks) else None
    scored = None if evaluation is None else _page(evaluation)
    caption = "Thin: every logged step, in the mode that is told emotions by label; thick: running mean."
    curves = Section("How it learned", pictures=(Picture("learning_curves", caption, learning_curves(history)),))
    page = Page(
        title="Expression manipulator: training report",
        subtitle="No truth in these tracks, so nothing was scored." if scored is None else scored.subtitle,
        verdict="" if scored is None else scored.verdict,
        cards=(*(scored.cards if scored else ()), effort_card(history, config, seconds, unit="window")),
        sections=(
            curves,
            *(scored.sections if scored else ()),
            Section("Use it", _USAGE, code=_commands(workdir)),
            settings_section(workdir, config),
        ),
    )
    path = write_page(workdir / "report", page)
    if evaluation is not None:
        _write_figures(workdir / "report", evaluation)
    return path


def _evaluated(workdir: Path, tracks: Path, limit: int) -> Evaluation:
    deliveries = evenly_spaced(read_truth(tracks), limit)
    head = load_head_model(tracks / HEAD_NAME) if (tracks / HEAD_NAME).is_file() else None
    return evaluate([Candidate("trained", load_manipulator(workdir), str(workdir))], deliveries, head=head)


_USAGE = (
    "best/ holds the networks with the best held-out score and last/ those of the last step, in the same format. The"
    " commands give a code dict another emotion and draw it, and score any manipulator on any synthetic tracks."
)


def _commands(workdir: Path) -> str:
    return (
        f"$ asccl manipulate-coefficients CODES.npz --checkpoint {workdir} --emotion happy --output happy.npz\n"
        "$ python -m DECA_torch_bridge render happy.npz --output happy.mp4\n"
        f"$ asccl evaluate-manipulator --checkpoint {workdir} --tracks TRACKS --output DIR"
    )


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Returns all figures: of every row, of its lead over the others, and of every clip and emotion."""
    first = evaluation.rows[0]
    rows = []
    for row in evaluation.rows:
        figures = {measure.name: _as_dict(summary(row.scores, measure.name)) for measure in MEASURES}
        leads = {measure.name: _as_dict(difference(row.scores, first.scores, measure.name)) for measure in MEASURES}
        rows.append(
            {
                "name": row.name,
                "source": row.source,
                "figures": figures,
                "minus_first_row": leads,
                "confusion": dict(zip(REQUESTED, confusion(row.scores).tolist(), strict=True)),
                "clips": [dataclasses.asdict(score) for score in row.scores],
            }
        )
    return {"clips": len(evaluation.deliveries), "head": _head(evaluation), "rows": rows}


def to_text(evaluation: Evaluation) -> str:
    """Returns the grids as aligned text, ending with the verdict."""
    blocks = [
        "\n".join(filter(None, (grid.title, grid.note, "", align(grid.headings, grid.rows))))
        for grid in _grids(evaluation)
    ]
    return "\n\n".join([*blocks, _verdict(evaluation)]) + "\n"


def _markdown(evaluation: Evaluation) -> str:
    blocks = [f"# Manipulator evaluation\n\n{_subtitle(evaluation)}\n\n{_verdict(evaluation)}"]
    for grid in _grids(evaluation):
        lines = [grid.headings, ["---"] * len(grid.headings), *grid.rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        blocks.append(f"## {grid.title}\n\n{grid.note}\n\n{table}")
    return "\n\n".join(blocks) + "\n"


def _page(evaluation: Evaluation, told: str = "") -> Page:
    rows = evaluation.rows
    delivery = _example(evaluation.deliveries)
    by_label = [row for row in rows if row.name != COPY and "by reference" not in row.name]
    curves = Picture(
        "curves",
        f"Clip {delivery.clip}, one of middle length; nothing picked by outcome. Below the jaw, the coefficients that"
        " the true emotion changes most.",
        coefficient_curves(delivery, by_label, _CURVE_EMOTIONS),
    )
    confusions = Picture(
        "confusion",
        "Percentage of frames whose expression is nearest to each emotion's truth of the same moment; a row sums to"
        " 100.",
        confusion_panels(rows),
    )
    by_emotion = Picture("by_emotion", "Mean over clips; bars span the middle half of the clips.", emotion_panels(rows))
    sections = [
        Section("Emotion, jaw and mouth", _MEASURED, (confusions, by_emotion), _grids(evaluation)),
        Section("Coefficients along a clip", pictures=(curves,)),
    ]
    strips = face_strips(evaluation, by_label, delivery)
    if strips is not None:
        caption = f"Clip {delivery.clip} at the frame where the source's mouth is widest open; first row: the truth."
        sections.insert(1, Section("Faces", pictures=(Picture("faces", caption, strips),)))
    sources = Grid("Rows", "", ("row", "from"), tuple((row.name, row.source) for row in rows))
    sections.append(Section("What was compared", told, grids=(sources,)))
    return Page(
        title="Manipulator evaluation",
        subtitle=_subtitle(evaluation),
        verdict=_verdict(evaluation),
        cards=_cards(evaluation),
        sections=tuple(sections),
    )


_MEASURED = (
    "Every source is a neutral clip of a speaker who was never trained on, and its exact counterpart in each emotion is"
    " known: same words, same moment, same blinks. A copy of the source keeps all of the speech and reaches no emotion;"
    " an edit must beat its mouth error while the jaw still follows the source."
)


def _example(deliveries: Sequence[TrueDelivery]) -> TrueDelivery:
    return sorted(deliveries, key=lambda delivery: (len(delivery.source), delivery.clip))[len(deliveries) // 2]


def _subtitle(evaluation: Evaluation) -> str:
    speakers = len({delivery.speaker for delivery in evaluation.deliveries})
    frames = sum(len(delivery.source) for delivery in evaluation.deliveries)
    return (
        f"{len(evaluation.deliveries)} neutral clips of {speakers} held-out speakers, {frames:,} frames, each edited to"
        f" {len(REQUESTED)} emotions."
    )


def _verdict(evaluation: Evaluation) -> str:
    first = evaluation.rows[0]
    hits, jaw = summary(first.scores, "hits"), summary(first.scores, "jaw_correlation")
    assert hits is not None and jaw is not None
    words = [
        f"{first.name}: the emotion asked for is the nearest true one in {100 * hits.value:.0f} % of frames"
        f" ({_met(hits.value >= EMOTION_BAR)}: at least {100 * EMOTION_BAR:.0f} %); the jaw follows the source with a"
        f" correlation of {jaw.value:.2f} ({_met(jaw.value >= JAW_BAR)}: at least {JAW_BAR})."
    ]
    for row in evaluation.rows[1:]:
        lead = difference(row.scores, first.scores, "mouth_error_mm")
        if lead is None or "by reference" in row.name:
            continue
        relation = "higher" if lead.value > 0 else "lower"
        clear = "clearly" if lead.clear else "not clearly"
        words.append(f"Mouth error of {row.name}: {clear} {relation}, {lead.text(3)} mm, {interval_note([lead])}.")
    return " ".join(words)


def _met(met: bool) -> str:
    return "bar met" if met else "bar MISSED"


def _cards(evaluation: Evaluation) -> tuple[Card, ...]:
    first, copy = evaluation.rows[0], evaluation.rows[-1]
    meanings = {
        "hits": "Share of frames whose expression is nearest to the truth of the emotion asked for; 1 in 7 by chance.",
        "jaw_correlation": "Along each clip, of the edited jaw opening with the source's; the truth itself has"
        f" {_truth_of_jaw(evaluation):.2f}.",
        "mouth_error_mm": "Mean distance of lip landmarks from where they would be in that emotion.",
        "mouth_motion_error_mm": "The same without each clip's mean offset: what is wrong with speech alone.",
    }
    cards = []
    for name, meaning in meanings.items():
        figure, other = summary(first.scores, name), summary(copy.scores, name)
        if figure is None or other is None:
            continue
        measure = next(measure for measure in MEASURES if measure.name == name)
        cards.append(Card(measure.title, f"{figure.value:.3f}", f"{meaning} {COPY.capitalize()}: {other.value:.3f}."))
    return tuple(cards)


def _truth_of_jaw(evaluation: Evaluation) -> float:
    """Correlation of the true jaw with the source's: emotions open the mouth wider or less, so it is not quite 1."""
    found = summary(evaluation.rows[-1].scores, "jaw_true_correlation")
    return found.value if found is not None else float("nan")


def _grids(evaluation: Evaluation) -> tuple[Grid, ...]:
    grids = [_overall(evaluation.rows), _against_first(evaluation.rows)]
    grids += [_by(evaluation.rows, "emotion", name) for name in _SHOWN]
    grids += [_by(evaluation.rows, "speaker", name) for name in _SHOWN]
    return tuple(grid for grid in grids if grid.rows)


def _overall(rows: Sequence[Row]) -> Grid:
    shown = _measures(rows)
    cells = tuple(
        (row.name, *(_figure(summary(row.scores, measure.name), measure.digits) for measure in shown)) for row in rows
    )
    over = interval_note(summary(row.scores, measure.name) for row in rows for measure in shown)
    note = f"Means over clips and emotions, {over}."
    return Grid("Figures", note, ("row", *(measure.title for measure in shown)), cells)


def _against_first(rows: Sequence[Row]) -> Grid:
    first, shown = rows[0], _measures(rows)
    cells = []
    for row in rows[1:]:
        leads = [(difference(row.scores, first.scores, measure.name), measure.digits) for measure in shown]
        marked = ["" if lead is None else lead.text(digits) + (CLEAR if lead.clear else "") for lead, digits in leads]
        cells.append((row.name, *marked))
    over = interval_note(difference(row.scores, first.scores, one.name) for row in rows[1:] for one in shown)
    note = (
        f"Each row minus {first.name}, on the same clips, {over}; a star marks a difference whose interval excludes"
        " zero."
    )
    return Grid("Differences", note, ("row", *(measure.title for measure in shown)), tuple(cells))


def _by(rows: Sequence[Row], label: str, name: str) -> Grid:
    measure = next(measure for measure in MEASURES if measure.name == name)
    labels = list(dict.fromkeys(getattr(score, label) for score in rows[0].scores))
    cells = []
    for row in rows:
        parts = [[score for score in row.scores if getattr(score, label) == value] for value in labels]
        figures = [summary(part, name) for part in parts]
        if all(figure is not None for figure in figures):
            cells.append((row.name, *(f"{figure.value:.{measure.digits}f}" for figure in figures if figure)))
    return Grid(f"{measure.title.capitalize()} by {label}", "", ("row", *labels), tuple(cells))


def _measures(rows: Sequence[Row]) -> list[Measure]:
    return [measure for measure in MEASURES if summary(rows[0].scores, measure.name) is not None]


def _figure(interval: Interval | None, digits: int) -> str:
    return "" if interval is None else interval.text(digits)


def _as_dict(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else dataclasses.asdict(interval)


def _head(evaluation: Evaluation) -> str | None:
    return None if evaluation.head is None else evaluation.head.source
