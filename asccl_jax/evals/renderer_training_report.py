"""The page that ends a renderer's training: how it learned, and held-out clips before and after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm
from PIL import Image

from asccl_jax.data.aligned_frames import RenderedClip
from asccl_jax.data.clip_sources import open_clips
from asccl_jax.data.held_out import training_and_held_out
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.data.sequences import RenderSequences, SequenceItem
from asccl_jax.evals.bootstrap import interval_note
from asccl_jax.evals.history import History, series
from asccl_jax.evals.renderer_evaluation import Candidate, Evaluation, evaluate
from asccl_jax.evals.renderer_figures import drawn_on_the_way, learning_curves
from asccl_jax.evals.renderer_report import DIFFERENCES, OWN_CLIPS, own_grids, write_figures
from asccl_jax.evals.renderer_scores import difference, summary
from asccl_jax.evals.report_page import Card, Page, Picture, Section, write_page
from asccl_jax.evals.strip_figure import strip_figure
from asccl_jax.evals.training_cards import effort_card, settings_section
from asccl_jax.metrics_file import METRICS_FILE, picture_files, read_metrics
from asccl_jax.saved_renderer import load_renderer

__all__ = ["write_training_report"]

CLIPS = 12
"""Held-out sequences in the report of a training run."""

_BEFORE = "before training"
_PICTURE = "held_out"
_PICTURED = 3
_CACHE_BYTES = 1 << 28
_WIDE = 6.6


def write_training_report(workdir: Path, data: Path, *, seconds: float | None = None, limit: int = CLIPS) -> Path:
    """Writes `report/report.html` of a finished training run, its pictures, and the evaluation's table.

    The renderer in `best/` (else `last/`) and the one in `initial/` draw the clips of the people learnt that are marked
    "test", or where there are none the held-out sequences, by which `best/` was selected.

    Args:
      workdir: Folder of the run, with `config.json`, `metrics.jsonl`, `pictures/`, `initial/` and `best/`.
      data: Records or folders of subjects that it was trained on.
      seconds: Wall time of the training, if known.
      limit: Most held-out sequences to draw.

    Returns:
      Path of the page.

    Raises:
      InputError: The data or one of the renderers is missing or broken.
    """
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    candidates = (
        Candidate("trained", load_renderer(workdir), str(workdir)),
        Candidate(_BEFORE, load_renderer(workdir / "initial"), str(workdir / "initial")),
    )
    training, held_out = _sequences(data, config)
    tested = [
        one for one in held_out.clips.clips.values() if one.split == "test" and one.speaker in training.speakers()
    ]
    parts = tested or [_as_clip(held_out, item) for item in held_out.items]
    with tqdm.tqdm(desc="drawing for the report", unit="clip", dynamic_ncols=True, disable=None) as bar:
        evaluation = evaluate(
            candidates, held_out.clips, held_out=parts, limit=limit, pictured=limit, advance=bar.update
        )
    page = _page(workdir, evaluation, (training, held_out), config, seconds)
    path = write_page(workdir / "report", page)
    write_figures(workdir / "report", evaluation)
    return path


def _sequences(data: Path, config: Mapping[str, Any]) -> tuple[RenderSequences, RenderSequences]:
    """What was trained on and what was held out, as the run had it."""
    entries = config["data"]
    clips = open_clips(
        data,
        image_size=config["model"]["image_size"],
        detail=entries["detail"],
        region=entries["region"],
        cache_bytes=_CACHE_BYTES,
    )
    return training_and_held_out(
        clips,
        speakers=entries["speakers"],
        frames_per_sequence=entries["frames_per_sequence"],
        length=entries["length"],
        chunk=config["chunk"],
    )


def _as_clip(sequences: RenderSequences, item: SequenceItem) -> RenderedClip:
    return dataclasses.replace(sequences.clips.entry(item.clip), runs=((item.first, item.first + item.frames - 1),))


def _page(
    workdir: Path,
    evaluation: Evaluation,
    sequences: tuple[RenderSequences, RenderSequences],
    config: Mapping[str, Any],
    seconds: float | None,
) -> Page:
    history = read_metrics(workdir / METRICS_FILE)
    best = _best_step(history) if (workdir / "best").is_dir() else None
    caption = (
        "Thin: every logged step; thick: running mean. Held-out sequences are the same every time, drawn from an empty"
        " history; first: of their first frames; dotted: the step of best/." + _undecided(config)
    )
    curves = Picture("learning_curves", caption, learning_curves(history, best_step=best))
    sections = [Section("How it learned", pictures=(curves, *_pictures(workdir)))]
    sections.append(Section("Held-out sequences", OWN_CLIPS, tuple(_strips(evaluation)), own_grids(evaluation)))
    sections.append(Section("Use it", _USAGE, code=_commands(workdir)))
    sections.append(settings_section(workdir, config))
    which = "last/" if best is None else f"best/, of step {best:,}"
    same = sequences[0].items == sequences[1].items
    size, scored = evaluation.image_size, len(evaluation.rows[0].own)
    return Page(
        title="Neural renderer: training report",
        subtitle=f"{which}, on {scored} held-out sequence{'s' if scored > 1 else ''} at {size} x {size} pixels.",
        verdict=_verdict(evaluation, config) + (_SAME if same else ""),
        cards=(*_cards(evaluation), effort_card(history, config, seconds, unit="chunk"), _data_card(*sequences)),
        sections=tuple(sections),
    )


_SAME = " No clip is long enough to be divided: these are the frames that it was trained on."


def _undecided(config: Mapping[str, Any]) -> str:
    """What a discriminator scores that cannot tell real from drawn; only least squares have such a mark."""
    if config["adversarial"]["mode"] != "ls":
        return ""
    mark = 0.25 * config["model"]["discriminator_scales"]
    return f" A discriminator that tells nothing apart has {mark:g} for real and for fake."


def _best_step(history: History) -> int | None:
    """Step of the lowest held-out score after the start, the first of several: what `best/` holds."""
    steps, scores = series(history, "eval/score")
    trained = steps > 0
    return int(steps[trained][scores[trained].argmin()]) if trained.any() else None


def _verdict(evaluation: Evaluation, config: Mapping[str, Any]) -> str:
    trained, before = (row.own for row in evaluation.rows[:2])
    gain = difference(trained, before, "psnr")
    quality, start = summary(trained, "psnr").value, summary(before, "psnr").value
    words = [
        f"Held-out frames are given back with {quality:.1f} dB and an SSIM of {summary(trained, 'ssim').value:.3f};"
        f" before training it was {start:.1f} dB."
    ]
    if not gain.low > 0:  # nor where there is no interval
        words.append(f"That is NOT clearly more: {gain.text(1)} dB, {interval_note([gain])}.")
    if not config["metric"]["path"]:
        words.append("No metric was given: this is training without the supervision that the paper adds to NED.")
    return " ".join(words)


def _cards(evaluation: Evaluation) -> tuple[Card, ...]:
    trained, before = (
        {name: summary(row.own, name).value for name in ("psnr", "ssim", "mouth", "first_psnr", "later_psnr")}
        for row in evaluation.rows[:2]
    )
    return (
        Card("PSNR", f"{trained['psnr']:.1f} dB", f"Held-out frames, within the mask; before: {before['psnr']:.1f}."),
        Card("SSIM", f"{trained['ssim']:.3f}", f"Of the same frames, 1 is equal; before: {before['ssim']:.3f}."),
        Card(
            "mouth error",
            f"{trained['mouth']:.1f}",
            f"Levels of 0..255, in a square around the mouth; before: {before['mouth']:.1f}.",
        ),
        Card(
            "first frame",
            f"{trained['first_psnr']:.1f} dB",
            f"With no history to draw on; those with one have {trained['later_psnr']:.1f} dB"
            f" (before: {before['first_psnr']:.1f} and {before['later_psnr']:.1f}).",
        ),
    )


def _data_card(training: RenderSequences, held_out: RenderSequences) -> Card:
    frames = [sum(item.frames for item in one.items) for one in (training, held_out)]
    people = len({training.clips.entry(item.clip).speaker for item in training.items})
    return Card(
        "data",
        f"{len(training)} + {len(held_out)} sequences",
        f"{frames[0]:,} frames to train on, of {people} {'person' if people == 1 else 'people'};"
        f" {frames[1]:,} held out.",
    )


def _pictures(workdir: Path) -> Sequence[Picture]:
    files = picture_files(workdir, _PICTURE)
    if not files:
        return ()
    shown = {step: np.asarray(Image.open(files[step]).convert("RGB")) for step in evenly_spaced(list(files), _PICTURED)}
    caption = (
        "First and last frame of held-out sequences, true ones above what was drawn, at the first evaluation, one"
        " halfway, and the last."
    )
    return (Picture("drawn", caption, drawn_on_the_way(shown)),)


def _strips(evaluation: Evaluation) -> list[Picture]:
    # Rows: the truth, what the first candidate drew, the difference; those of the start would only show noise.
    strips = []
    for number, pictures in enumerate(evaluation.own_pictures):
        figure = strip_figure(pictures.rows[:3], wide=_WIDE)
        strips.append(Picture(f"clip_{number}", f"{pictures.title}; {DIFFERENCES}", figure))
    return strips


_USAGE = (
    "best/ holds the networks with the lowest held-out difference and last/ those of the last step, in the same format."
    " The commands draw whole clips, with another expression where --conditioning gives one, and score any renderer."
)


def _commands(workdir: Path) -> str:
    return (
        f"$ asccl render RECORDS --checkpoint {workdir} --output FRAMES\n"
        f"$ asccl evaluate-renderer --checkpoint {workdir} --records RECORDS --output DIR"
    )
