"""The report on edited coefficients: `scores.json`, `table.md` and a page with curves, confusions and drawn heads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import TrueDelivery, has_truth, read_truth
from asccl_jax.evals.figure_style import INK, MUTED, OTHER_COLOURS, ROW_COLOURS, new_figure, quiet, show_image, title
from asccl_jax.evals.manipulator_scores import (
    COPY,
    MEASURES,
    REQUESTED,
    Candidate,
    Evaluation,
    Measure,
    Row,
    confusion,
    difference,
    evaluate,
    summary,
)
from asccl_jax.evals.metric_figures import FACE_DPI
from asccl_jax.evals.metric_text import CLEAR, Grid, align
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
    write_page,
)
from asccl_jax.evals.statistics import Interval, interval_note
from asccl_jax.head.head_model import HEAD_NAME, HeadModel, load_head_model
from asccl_jax.head.shape_images import ShapeRenderer
from asccl_jax.metrics_file import METRICS_FILE, read_metrics
from asccl_jax.weights import load_manipulator
from asccl_jax.work import write_atomically

__all__ = [
    "EMOTION_BAR",
    "JAW_BAR",
    "coefficient_curves",
    "colours",
    "confusion_panels",
    "emotion_panels",
    "face_strips",
    "learning_curves",
    "to_dict",
    "to_text",
    "write_evaluation",
    "write_training_report",
]

# Pictures of edited clips: coefficient curves, emotions reached, figures by emotion, strips of drawn heads.

_DEGREES = 180 / np.pi
_CURVES = 3
_FACE_PX = 168
_BAND = (0.10, 0.94, 0.16, 0.84)
"""Rows and columns, as shares of DECA's crop, that hold the face."""


def colours(rows: Sequence[Row]) -> dict[str, str]:
    """Returns a colour a row: the first as every page's trained one, copies grey, others in turn."""
    others = iter((ROW_COLOURS["pixels"], ROW_COLOURS["control"], *OTHER_COLOURS * len(rows)))
    found = {rows[0].name: ROW_COLOURS["trained"]}
    for row in rows[1:]:
        found[row.name] = MUTED if row.name == COPY else next(others)
    return found


def learning_curves(history: History) -> Figure:
    """Returns the discriminator's scores, what the generator is held to, and the held-out score over the steps.

    Args:
      history: Lines of `metrics.jsonl`.
    """
    figure = new_figure(11.0, 2.9)
    game, held, speech, score = figure.subplots(1, 4)
    panels = (
        (game, "Discriminator and generator", "manipulator/latent/", ("real", "fake", "adversarial")),
        (held, "Style, cycle, meshes", "manipulator/latent/", ("style", "cycle", "mesh")),
        (speech, "Mouth correlation (2 is best)", "manipulator/", ("latent/mouth", "reference/mouth")),
    )
    shades = (ROW_COLOURS["trained"], ROW_COLOURS["pixels"], ROW_COLOURS["control"])
    for axes, heading, group, names in panels:
        for name, colour in zip(names, shades, strict=False):
            steps, values = series(history, group + name)
            if len(values):
                axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                axes.plot(steps, smoothed(values), color=colour, linewidth=1.8, label=name)
        axes.legend(fontsize=7.5, frameon=False, loc="best")
        title(axes, heading)
    steps, values = series(history, "eval/score")
    score.plot(steps, values, color=ROW_COLOURS["trained"], marker="o", markersize=4, linewidth=1.8)
    title(score, "Held-out: style + cycle - mouth")
    for axes in (game, held, speech, score):
        quiet(axes)
        axes.set_xlabel("step", fontsize=8, color="#56616d")
    return figure


def coefficient_curves(delivery: TrueDelivery, rows: Sequence[Row], emotions: Sequence[str]) -> Figure:
    """Returns the jaw's opening and the expression coefficients that tell each emotion from neutral, over a clip.

    Args:
      delivery: The clip.
      rows: Whose edits are drawn, beside source and truth.
      emotions: A column each.
    """
    edits, shades = {row.name: row.edit(delivery) for row in rows}, colours(rows)
    figure = new_figure(11.0, 1.55 * (_CURVES + 1) + 0.5)
    grid = figure.subplots(_CURVES + 1, len(emotions), sharex=True, squeeze=False)
    for column, emotion in enumerate(emotions):
        truth = delivery.truth[emotion]
        shifts = np.abs((truth - delivery.source)[:, 1:]).mean(axis=0)
        telling = np.argsort(-shifts, kind="stable")[:_CURVES]
        for axes, place in zip(grid[:, column], (0, *(telling + 1)), strict=True):
            unit = _DEGREES if place == 0 else 1
            axes.plot(unit * delivery.source[:, place], color=MUTED, linewidth=1.2, label="source")
            axes.plot(unit * truth[:, place], color=INK, linewidth=1.4, linestyle=(0, (4, 2)), label="truth")
            for name, edited in edits.items():
                axes.plot(unit * edited[emotion][:, place], color=shades[name], linewidth=1.5, label=name)
            quiet(axes)
            name = "jaw opening, degrees" if place == 0 else f"expression {place}"
            title(axes, f"{emotion}: {name}" if place == 0 else name)
        grid[-1, column].set_xlabel("frame", fontsize=8, color="#56616d")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure


def confusion_panels(rows: Sequence[Row]) -> Figure:
    """Returns, a panel a row, how often each requested emotion came out as each emotion."""
    columns = min(len(rows), 3)
    lines = -(-len(rows) // columns)
    figure = new_figure(3.7 * columns + 0.6, 2.95 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, row in zip(grid.ravel(), rows, strict=False):
        shares = confusion(row.scores)
        axes.imshow(shares, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=1, aspect="auto")
        for (line, column), share in np.ndenumerate(shares):
            # Shares that round to nothing would only be noise on the page.
            if share >= 0.005:
                shade = "white" if share > 0.55 else INK
                axes.text(column, line, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=shade)
        axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(REQUESTED)), REQUESTED)
        axes.tick_params(length=0, labelsize=8, colors="#56616d")
        for spine in axes.spines.values():
            spine.set_visible(False)
        title(axes, row.name)
    for axes in grid.ravel()[len(rows) :]:
        axes.set_visible(False)
    grid[0, 0].set_ylabel("asked for", fontsize=8, color="#56616d")
    return figure


def emotion_panels(rows: Sequence[Row]) -> Figure:
    """Returns emotion reached, jaw correlation and mouth error by requested emotion, a dot a row of the table."""
    shown = [_measure("hits"), _measure("jaw_correlation")]
    if rows[0].scores[0].mouth_error_mm is not None:
        shown += [_measure("mouth_error_mm"), _measure("mouth_motion_error_mm")]
    figure = new_figure(11.0, 3.1)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, measure in zip(panels, shown, strict=True):
        _emotion_panel(axes, rows, measure)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), fontsize=8, frameon=False)
    return figure


def _emotion_panel(axes: Axes, rows: Sequence[Row], measure: Measure) -> None:
    shades = colours(rows)
    spread = np.linspace(-0.26, 0.26, len(rows)) if len(rows) > 1 else [0.0]
    for shift, row in zip(spread, rows, strict=True):
        for place, emotion in enumerate(REQUESTED):
            values = [getattr(score, measure.name) for score in row.scores if score.emotion == emotion]
            shade, x = shades[row.name], place + shift
            # The bar spans the middle half of the clips, the dot is their mean.
            axes.plot([x, x], np.percentile(values, [25, 75]), color=shade, linewidth=2.4, alpha=0.4)
            label = row.name if place == 0 else None
            axes.plot(x, np.mean(values), "o", color=shade, markersize=4.5, label=label)
    axes.set_xticks(range(len(REQUESTED)), REQUESTED, rotation=35, ha="right", rotation_mode="anchor")
    quiet(axes)
    if measure.name == "hits":
        axes.set_ylim(-0.03, 1.03)
    elif not measure.higher_is_better:
        axes.set_ylim(bottom=0)
    title(axes, measure.title)


def face_strips(evaluation: Evaluation, rows: Sequence[Row], delivery: TrueDelivery) -> Figure | None:
    """Returns drawn heads: source and every emotion in columns, truth and rows of the table below each other.

    The moment is the one at which the source's mouth is widest open. None if there is no head to draw.
    """
    if evaluation.head is None:
        return None
    frame = int(np.argmax(delivery.source[:, 0]))
    tracks: dict[str, Mapping[str, Float[np.ndarray, "n c"]]] = {"truth": delivery.truth}
    tracks |= {row.name: row.edit(delivery) for row in rows}
    wanted = np.stack(
        [delivery.source[frame], *(track[emotion][frame] for track in tracks.values() for emotion in REQUESTED)]
    )
    images = iter(_draw(evaluation.head, delivery, frame, wanted))
    source = next(images)
    figure = new_figure(0.5 + 1.42 * (len(REQUESTED) + 1), 1.44 * len(tracks) + 0.25, dpi=FACE_DPI)
    grid = figure.subplots(len(tracks), len(REQUESTED) + 1, squeeze=False)
    for line, name in enumerate(tracks):
        for column, heading in enumerate(("source", *REQUESTED)):
            axes = grid[line, column]
            show_image(axes, source if column == 0 else next(images))
            axes.set_aspect("equal")
            if line == 0:
                axes.set_title(heading, fontsize=8.5, color=INK, pad=4)
        grid[line, 0].set_ylabel(name, fontsize=8.5, color=INK, labelpad=5)
    return figure


def _draw(
    head: HeadModel, delivery: TrueDelivery, frame: int, coefficients: Float[np.ndarray, "n c"]
) -> list[UInt8[np.ndarray, "h w 3"]]:
    renderer = ShapeRenderer(head, delivery.codes[[frame]], size=_FACE_PX)
    top, bottom, left, right = (round(share * _FACE_PX) for share in _BAND)
    drawn = []
    for first in range(0, len(coefficients), 7):
        # Batches of one size: the last one is filled with its own last face.
        part = coefficients[np.minimum(np.arange(first, first + 7), len(coefficients) - 1)]
        faces = np.asarray(renderer(jnp.asarray(part, jnp.float32)))[:, top:bottom, left:right]
        drawn += [(255 * np.clip(face, 0, 1)).round().astype(np.uint8) for face in faces]
    return drawn[: len(coefficients)]


def _measure(name: str) -> Measure:
    return next(measure for measure in MEASURES if measure.name == name)


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
        f"$ asccl video manipulate-coefficients CODES.npz --checkpoint {workdir} --emotion happy --output happy.npz\n"
        "$ asccl head draw happy.npz --output happy.mp4\n"
        f"$ asccl eval manipulator --checkpoint {workdir} --tracks TRACKS --output DIR"
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
