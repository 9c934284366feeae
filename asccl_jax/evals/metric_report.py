"""Reports on a metric: the page of an evaluation, and the page that ends a training run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asccl_jax.data.frames import FrameStore
from asccl_jax.data.manifest import Manifest, read_manifest
from asccl_jax.data.test_speakers import scored_on
from asccl_jax.evals.metric_comparisons import load_comparisons
from asccl_jax.evals.metric_evaluation import Candidate, Evaluation, evaluate, work_units
from asccl_jax.evals.metric_figures import (
    attention_figures,
    example_figure,
    learning_curves,
    ordering,
    ratios,
    similarity,
)
from asccl_jax.evals.metric_scores import DRAWS, chance_level
from asccl_jax.evals.metric_table import ORDER_VIEWS, RowSummary, Table, demo_bars, outcomes, verdict
from asccl_jax.evals.metric_text import Grid, bar_grids, describe, learning_grids, markdown, questions, speech_grids
from asccl_jax.evals.report import Card, Page, Picture, Section, effort_card, json_text, settings_section, write_page
from asccl_jax.evals.statistics import interval_note
from asccl_jax.metrics_file import METRICS_FILE, read_metrics
from asccl_jax.progress import ProgressBar
from asccl_jax.weights import load_metric

__all__ = [
    "metric_cards",
    "metric_sections",
    "write_evaluation",
    "write_training_report",
]

# Key figures and sections that every page on a metric shares, in words a newcomer can follow.


def metric_cards(evaluation: Evaluation) -> tuple[Card, ...]:
    """Returns the figures a person asks for first."""
    table = evaluation.table
    trained, untrained = table.row("trained"), table.row("untrained")
    candidate = evaluation.candidate("trained")
    if trained is None or trained.total is None or candidate is None:
        return ()
    chance = chance_level(candidate.metric.settings)
    start = f"untrained {untrained.total.value:.2f}, " if untrained is not None and untrained.total else ""
    cards = [
        Card(
            "loss on matched pairs (NCE)",
            f"{trained.total.value:.2f}",
            f"Lower is better: {start}guessing {chance:.2f}. It says that corresponding regions embed alike, not yet"
            " that the metric hears speech.",
        ),
        Card(
            "right region found, stages 1 to 4",
            _percentages(trained),
            "How often the nearest counterpart of a local change is the right one"
            + (f" (untrained {_percentages(untrained)})." if untrained is not None else "."),
        ),
    ]
    for name, label, meaning in (
        ("speech", "clearly other speech costs", "Loss of a frame of clearly other speech over the aligned one"),
        ("neutral_speech", "other speech on a neutral key costs", "Changed speech over changed pose and blink"),
    ):
        cards += _ratio_card(table, trained, name, label, meaning)
    return (*cards, *_comparison_cards(table))


def _ratio_card(table: Table, trained: RowSummary, name: str, label: str, meaning: str) -> list[Card]:
    result = trained.result(name, "face")
    if result is None:
        return []
    others = [
        f"{row.name} {found.ratio.value:.2f}"
        for row in table.rows
        if row is not trained and (found := row.result(name, "face")) is not None
    ]
    value = f"{result.ratio.value:.2f} times"
    interval = f", 95 % [{result.ratio.low:.2f}, {result.ratio.high:.2f}]" if result.ratio.known else ""
    return [Card(label, value, f"{meaning}{interval}; 1 would be deaf to speech. {'; '.join(others)}.")]


def _comparison_cards(table: Table) -> list[Card]:
    found = outcomes(table)
    cards = []
    if found:
        won = sum(outcome == "ahead" for outcome in found.values())
        meaning = "Comparisons in which it clearly beats both the untrained network and plain pixels, whole face."
        cards.append(Card("clear wins over both baselines", f"{won} of {len(found)}", meaning))
    bars = demo_bars(table)
    if bars:
        missed = [bar for bar in bars if not bar.met]
        meaning = "What configs/asccl.py:demo must reach on synthetic heads; other recipes have other figures."
        cards.append(Card("bars of the demo recipe", f"{len(bars) - len(missed)} of {len(bars)} met", meaning))
    return cards


def metric_sections(evaluation: Evaluation) -> tuple[Section, ...]:
    """Returns the sections on one evaluation: what was learned, what it looks at, what it tells apart, the bars."""
    sections = (
        _learning_section(evaluation),
        _attention_section(evaluation),
        _examples_section(evaluation),
        _speech_section(evaluation),
        Section("Bars", grids=bar_grids(evaluation.table)),
    )
    return tuple(section for section in sections if section.pictures or section.grids)


def _speech_section(evaluation: Evaluation) -> Section:
    table = evaluation.table
    asked = questions(table)
    if not asked.rows:
        return Section("What it tells apart")
    text = (
        "A loss that measures speech must rise when the speech differs, and not when only the emotion, the pose or the"
        " person does. Every row below is judged on the same queries; a learned metric that does not clearly beat plain"
        " pixels and its own random start is not worth its cost."
    )
    shown = [found for row in table.rows for found in row.contrasts if found.view in ORDER_VIEWS]
    captions = (
        f"Share of queries in the right order, {interval_note(found.paired for found in shown)}; the dotted line is"
        " chance. Mouth: centres confined to mouth and chin.",
        "Mean loss where it should be higher over mean loss where it should be lower,"
        f" {interval_note(found.ratio for found in shown if found.view == 'face')}; the dotted line is a metric that"
        " sees no difference. Each row has a scale of its own.",
    )
    pictures = (Picture("ordering", captions[0], ordering(table)), Picture("ratios", captions[1], ratios(table)))
    return Section("What it tells apart", text, pictures, (asked, *speech_grids(table)))


def _examples_section(evaluation: Evaluation) -> Section:
    trained = evaluation.candidate("trained")
    if trained is None:
        return Section("Examples")
    text = "Queries on top; below them the keys they are compared with, and the loss that the trained metric gives."
    figure = example_figure(evaluation, trained.name)
    return Section("Examples", text, (Picture("examples", "Fixed, evenly spaced queries; nothing picked.", figure),))


def _learning_section(evaluation: Evaluation) -> Section:
    before, after = evaluation.table.row("untrained"), evaluation.table.row("trained")
    pictures: tuple[Picture, ...] = ()
    if before is not None and after is not None and before.stages and after.stages:
        caption = "Cosine of local changes between a neutral and an emotional face: the same region against all others."
        pictures = (Picture("similarity", caption, similarity(before, after)),)
    return Section("What was learned", pictures=pictures, grids=learning_grids(evaluation.table))


def _attention_section(evaluation: Evaluation) -> Section:
    before, after = evaluation.candidate("untrained"), evaluation.candidate("trained")
    if after is None:
        return Section("What it looks at")
    captions = {
        "picks": (
            "Numbered changes of the neutral face and the nearest ones of the emotional face, second stage: green is"
            " right, amber the right place in another direction, red elsewhere with a line to the true place."
        ),
        "weights": (
            "Adaptive weights: regions whose features differ strongly from their neighbours count up to twice as much"
            " in the loss. Grey cells at the border are never centres."
        ),
    }
    figures = attention_figures(evaluation, before, after)
    pictures = tuple(Picture(name, captions[name], figures[name]) for name in captions if name in figures)
    return Section("What it looks at", pictures=pictures)


def _percentages(row: RowSummary) -> str:
    return ", ".join(f"{100 * stage.top1:.0f}" for stage in row.stages) + " %"


REPORT_GROUPS = 100
"""Queries in the report of a training run: its two networks take a minute for them on two cores at 112 px."""


def write_evaluation(directory: Path, evaluation: Evaluation, *, told: str = "") -> Path:
    """Writes `scores.json`, `table.md`, `report.html` and its pictures; returns the page's path.

    Args:
      directory: Where to.
      evaluation: What to write.
      told: Whose clips were scored, in words.
    """
    path = write_page(directory, _evaluation_page(evaluation, told))
    _write_table(directory, evaluation)
    return path


def write_training_report(
    workdir: Path,
    records: Path,
    *,
    seconds: float | None = None,
    limit: int = REPORT_GROUPS,
    draws: int = DRAWS,
) -> Path:
    """Writes `report/report.html` of a finished training run, its pictures, and the evaluation's table.

    The metric in `best/` and the untrained one in `initial/` are scored on the controlled comparisons of the data set,
    or on ones derived from its test pairs, or where there are none its held-out pairs, by which `best/` was selected.

    Args:
      workdir: Folder of the run, with `config.json`, `metrics.jsonl`, `initial/` and `best/`.
      records: Data set of the run.
      seconds: Wall time of the training, if known.
      limit: Most queries to compare.
      draws: Draws of locations to average.

    Returns:
      Path of the page.

    Raises:
      InputError: The data set or one of the metrics is missing or broken.
    """
    comparisons = load_comparisons(records, limit=limit)
    candidates = (
        Candidate("trained", "trained", load_metric(workdir), str(workdir)),
        Candidate("untrained", "untrained", load_metric(workdir / "initial"), str(workdir / "initial")),
    )
    frames = FrameStore(records, comparisons.split)
    units = work_units(candidates, comparisons)
    with ProgressBar(total=units, desc="scoring for the report", unit="image") as bar:
        evaluation = evaluate(candidates, frames, comparisons, draws=draws, advance=bar.update)
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    speakers = {frames.index.clips[record.query_clip].speaker for record in comparisons.records}
    told = scored_on(comparisons.split, speakers, {"trained": workdir})
    page = _training_page(workdir, evaluation, config, read_manifest(records), seconds, told)
    path = write_page(workdir / "report", page)
    _write_table(workdir / "report", evaluation)
    return path


def _write_table(directory: Path, evaluation: Evaluation) -> None:
    (directory / "scores.json").write_text(json_text(evaluation.table.to_dict()), encoding="utf-8")
    (directory / "table.md").write_text(markdown(evaluation.table), encoding="utf-8")


def _evaluation_page(evaluation: Evaluation, told: str) -> Page:
    sources = Grid("Rows", "", ("row", "from"), tuple((row.name, row.source) for row in evaluation.table.rows))
    return Page(
        title="Metric evaluation",
        subtitle=describe(evaluation.table),
        verdict=verdict(evaluation.table),
        cards=metric_cards(evaluation),
        sections=(*metric_sections(evaluation), Section("What was compared", told, grids=(sources,))),
    )


def _training_page(
    workdir: Path,
    evaluation: Evaluation,
    config: Mapping[str, Any],
    manifest: Manifest,
    seconds: float | None,
    told: str,
) -> Page:
    history = read_metrics(workdir / METRICS_FILE)
    trained = evaluation.candidates[0].metric
    settings = trained.settings
    network = f"IResNet-{settings.depth}" if settings.stage_blocks is None else f"IResNet of {settings.blocks} blocks"
    curves = Picture(
        "learning_curves",
        "Thin: every logged step; thick: running mean. Held-out pairs are the same every time, at fixed locations.",
        learning_curves(history, chance=chance_level(settings)),
    )
    return Page(
        title="ASCCL metric: training report",
        subtitle=f"{network} at {settings.image_size} px on {manifest.name}, {config['data']['pairing']} pairs. "
        + describe(evaluation.table),
        verdict=_training_verdict(evaluation),
        cards=(*metric_cards(evaluation), effort_card(history, config, seconds, unit="pair"), _data_card(manifest)),
        sections=(
            Section("How it learned", pictures=(curves,)),
            *metric_sections(evaluation),
            Section("Whose faces were scored", told),
            _usage_section(workdir),
            settings_section(workdir, config),
        ),
    )


def _training_verdict(evaluation: Evaluation) -> str:
    trained, untrained = evaluation.table.row("trained"), evaluation.table.row("untrained")
    if trained is None or untrained is None or trained.total is None or untrained.total is None:
        return verdict(evaluation.table)
    share = trained.total.value / untrained.total.value
    learned = f"The loss on held-out faces fell to {100 * share:.0f} % of the untrained network's."
    return f"{learned} {verdict(evaluation.table)}"


def _data_card(manifest: Manifest) -> Card:
    train = manifest.speakers("train")
    held_out = sorted(
        {speaker for split in manifest.splits if split != "train" for speaker in manifest.speakers(split)}
    )
    frames = manifest.split("train").records("frames")
    shared = sorted(set(train) & set(held_out))
    meaning = "Held-out speakers are never trained on." if not shared else f"Also trained on: {', '.join(shared)}."
    return Card("data", f"{len(train)} + {len(held_out)} speakers", f"{frames:,} training frames. {meaning}")


def _usage_section(workdir: Path) -> Section:
    text = (
        "best/ holds the metric with the lowest held-out loss and last/ that of the last step, in the same format;"
        " metrics.jsonl and tensorboard/ hold every scalar. The first lines below supervise a generator of your own;"
        " the command scores any metric on any records."
    )
    code = (
        "from asccl_jax.weights import load_metric\n"
        "from asccl_jax.losses import asccl_loss, landmark_box\n\n"
        f'metric = load_metric("{workdir / "best"}")\n'
        "box = landmark_box(landmarks)  # 68 points of source, in pixels\n"
        "loss, parts = asccl_loss(metric, generated, source, key, face_box=box)  # RGB in [-1, 1]\n\n"
        f"$ asccl eval metric --checkpoint {workdir} --records RECORDS --output DIR"
    )
    return Section("Use it", text, code=code)
