"""Reports on a metric: the page of an evaluation, and the page that ends a training run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tqdm

from asccl_jax.data.frames import FrameStore
from asccl_jax.data.manifest import Manifest, read_manifest
from asccl_jax.data.test_speakers import scored_on
from asccl_jax.evals.comparisons import load_comparisons
from asccl_jax.evals.metric_bars import verdict
from asccl_jax.evals.metric_evaluation import Candidate, Evaluation, evaluate, work_units
from asccl_jax.evals.metric_figures import learning_curves
from asccl_jax.evals.metric_scores import DRAWS, chance_level
from asccl_jax.evals.metric_sections import metric_cards, metric_sections
from asccl_jax.evals.metric_text import Grid, describe, markdown
from asccl_jax.evals.report_page import Card, Page, Picture, Section, json_text, write_page
from asccl_jax.evals.training_cards import effort_card, settings_section
from asccl_jax.frozen_metric import load_metric
from asccl_jax.metrics_file import METRICS_FILE, read_metrics

__all__ = ["write_evaluation", "write_training_report"]

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
    with tqdm.tqdm(total=units, desc="scoring for the report", unit="image", dynamic_ncols=True, disable=None) as bar:
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
        "from asccl_jax.frozen_metric import load_metric\n"
        "from asccl_jax.losses import asccl_loss, landmark_box\n\n"
        f'metric = load_metric("{workdir / "best"}")\n'
        "box = landmark_box(landmarks)  # 68 points of source, in pixels\n"
        "loss, parts = asccl_loss(metric, generated, source, key, face_box=box)  # RGB in [-1, 1]\n\n"
        f"$ asccl evaluate-metric --checkpoint {workdir} --records RECORDS --output DIR"
    )
    return Section("Use it", text, code=code)
