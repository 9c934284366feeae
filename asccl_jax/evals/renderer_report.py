"""The report on renderers: `scores.json`, `table.md` and a page with strips of frames beside the truth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from asccl_jax.data.aligned_frames import RenderedClip, open_clips
from asccl_jax.data.held_out import training_and_held_out
from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.data.sequences import RenderSequences, SequenceItem
from asccl_jax.evals.figure_style import INK, MUTED, OTHER_COLOURS, ROW_COLOURS, new_figure, quiet, title
from asccl_jax.evals.metric_text import CLEAR, Grid, align
from asccl_jax.evals.renderer_evaluation import COPY, Candidate, Evaluation, Row, evaluate
from asccl_jax.evals.renderer_scores import DRIVEN_MEASURES, OWN_MEASURES, Measure, difference, summary
from asccl_jax.evals.report import (
    Card,
    History,
    Page,
    Picture,
    Section,
    effort_card,
    json_text,
    series,
    settings_section,
    smoothed,
    strip_figure,
    write_page,
)
from asccl_jax.evals.statistics import Interval, interval_note
from asccl_jax.metrics_file import METRICS_FILE, picture_files, read_metrics
from asccl_jax.progress import ProgressBar
from asccl_jax.weights import load_renderer
from asccl_jax.work import write_atomically

__all__ = [
    "DIFFERENCES",
    "OWN_CLIPS",
    "drawn_on_the_way",
    "evaluation_page",
    "learning_curves",
    "own_grids",
    "to_dict",
    "to_text",
    "write_evaluation",
    "write_figures",
    "write_training_report",
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


# Pictures of a renderer's training: curves of every term of its losses, and the frames it drew on the way.

_COLUMNS = 3
_DPI = 110
_WIDE = 8.4
_SHADES = (ROW_COLOURS["trained"], ROW_COLOURS["pixels"], ROW_COLOURS["control"], *OTHER_COLOURS)

_TERMS = (
    ("Generator: weighted sum", ("loss",)),
    ("Correlation metric", ("metric",)),
    ("Frame against frame", ("perceptual", "l1")),
    ("Feature matching", ("feature_matching", "mouth_feature_matching", "eyes_feature_matching")),
    ("Discriminators: half the sum", ("discriminator",)),
    ("Judged: whole frame", ("real", "fake", "adversarial")),
    ("Judged: mouth", ("mouth_real", "mouth_fake", "mouth_adversarial")),
    ("Judged: eyes", ("eyes_real", "eyes_fake", "eyes_adversarial")),
)
"""Panels of training scalars: heading, and names without the task's."""

_HELD_OUT = (
    ("Held-out frames: mean difference, 0..1", ("l1", "first_l1", "mouth_l1")),
    ("Held-out frames: PSNR, dB", ("psnr",)),
)


def learning_curves(history: History, *, best_step: int | None = None) -> Figure:
    """Returns every term of the losses and every held-out score over the steps; a panel of nothing is left out.

    Args:
      history: Lines of `metrics.jsonl`.
      best_step: Step to mark in the held-out panels.
    """
    logged = set().union(*history) if history else set()
    trained, held_out = (
        [
            (heading, found)
            for heading, names in panels
            if (found := [group + name for name in names if group + name in logged])
        ]
        for group, panels in (("renderer/", _TERMS), ("eval/", _HELD_OUT))
    )
    lines = max(-(-len(trained + held_out) // _COLUMNS), 1)
    figure = new_figure(11.0, 2.45 * lines)
    places = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axes, (heading, names) in zip(places, trained, strict=False):
        _panel(axes, history, heading, names, held_out=False)
    for axes, (heading, names) in zip(places[len(trained) :], held_out, strict=False):
        _panel(axes, history, heading, names, held_out=True)
        if best_step is not None:
            axes.axvline(best_step, color=MUTED, linestyle=":", linewidth=1.2)
    for axes in places[len(trained + held_out) :]:
        axes.set_visible(False)
    return figure


def drawn_on_the_way(pictures: Mapping[int, UInt8[ndarray, "h w 3"]]) -> Figure:
    """Returns pictures of several steps below each other.

    Args:
      pictures: By step, all of one size.
    """
    height, width = next(iter(pictures.values())).shape[:2]
    figure = new_figure(_WIDE, len(pictures) * (_WIDE * height / width + 0.32), dpi=_DPI)
    for axes, (step, picture) in zip(
        figure.subplots(len(pictures), 1, squeeze=False).ravel(), pictures.items(), strict=True
    ):
        axes.imshow(picture, interpolation="bicubic")
        axes.set_axis_off()
        axes.set_title(f"step {step:,}", fontsize=9.5, color=INK, loc="left", pad=4)
    return figure


def _panel(axes: Axes, history: History, heading: str, names: Sequence[str], *, held_out: bool) -> None:
    for name, colour in zip(names, _SHADES, strict=False):
        steps, values = series(history, name)
        label = name.partition("/")[2].replace("_", " ")
        if held_out:
            axes.plot(steps, values, color=colour, marker="o", markersize=3.5, linewidth=1.6, label=label)
            continue
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smoothed(values), color=colour, linewidth=1.6, label=label)
    if len(names) > 1:
        axes.legend(fontsize=7.5, frameon=False, loc="best")
    quiet(axes)
    title(axes, heading)
    axes.set_xlabel("step", fontsize=8, color="#56616d")


# The page that ends a renderer's training: how it learned, and held-out clips before and after.

CLIPS = 12
"""Held-out sequences in the report of a training run."""

_BEFORE = "before training"
_PICTURE = "held_out"
_PICTURED = 3
_CACHE_BYTES = 1 << 28
_PROGRESS_WIDE = 6.6


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
    with ProgressBar(desc="drawing for the report", unit="clip") as bar:
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
        verdict=_training_verdict(evaluation, config) + (_SAME if same else ""),
        cards=(
            *_training_cards(evaluation),
            effort_card(history, config, seconds, unit="chunk"),
            _data_card(*sequences),
        ),
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


def _training_verdict(evaluation: Evaluation, config: Mapping[str, Any]) -> str:
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


def _training_cards(evaluation: Evaluation) -> tuple[Card, ...]:
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
        figure = strip_figure(pictures.rows[:3], wide=_PROGRESS_WIDE)
        strips.append(Picture(f"clip_{number}", f"{pictures.title}; {DIFFERENCES}", figure))
    return strips


_USAGE = (
    "best/ holds the networks with the lowest held-out difference and last/ those of the last step, in the same format."
    " The commands draw whole clips, with another expression where --conditioning gives one, and score any renderer."
)


def _commands(workdir: Path) -> str:
    return (
        f"$ asccl video render RECORDS --checkpoint {workdir} --output FRAMES\n"
        f"$ asccl eval renderer --checkpoint {workdir} --records RECORDS --output DIR"
    )
