"""Pictures of edited clips: coefficient curves, emotions reached, figures by emotion, strips of drawn heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import TrueDelivery
from asccl_jax.evals.face_figures import FACE_DPI
from asccl_jax.evals.figure_style import INK, MUTED, OTHER_COLOURS, ROW_COLOURS, new_figure, quiet, show_image, title
from asccl_jax.evals.history import History, series, smoothed
from asccl_jax.evals.manipulator_evaluation import COPY, Evaluation, Row
from asccl_jax.evals.manipulator_scores import MEASURES, REQUESTED, Measure, confusion
from asccl_jax.geometry.head_model import HeadModel
from asccl_jax.geometry.shape_images import ShapeRenderer

__all__ = [
    "coefficient_curves",
    "colours",
    "confusion_panels",
    "emotion_panels",
    "face_strips",
    "learning_curves",
]

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
