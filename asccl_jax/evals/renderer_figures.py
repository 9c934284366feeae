"""Pictures of a renderer's training: curves of every term of its losses, and the frames it drew on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from asccl_jax.evals.figure_style import INK, MUTED, OTHER_COLOURS, ROW_COLOURS, new_figure, quiet, title
from asccl_jax.evals.history import History, series, smoothed

__all__ = ["drawn_on_the_way", "learning_curves"]

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
