"""The look of all figures: colours, type sizes, quiet axes; every figure is its own object, no global state."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = [
    "INK",
    "MUTED",
    "NEARLY",
    "RIGHT",
    "ROW_COLOURS",
    "STAGE_COLOURS",
    "WRONG",
    "new_figure",
    "png",
    "quiet",
    "row_colours",
    "show_image",
    "title",
]

INK = "#1d2733"


MUTED = "#8a94a0"


RIGHT, NEARLY, WRONG = "#1f9d55", "#e0a100", "#d64545"


STAGE_COLOURS = ("#9ecae1", "#4f9bd0", "#1f6fb5", "#0b3c75")


ROW_COLOURS = {"trained": "#1f6fb5", "control": "#b1559f", "untrained": "#8a94a0", "pixels": "#d98e04"}


OTHER_COLOURS = ("#2a9d8f", "#7a5bd0", "#c2554a", "#5d8a2f")


def new_figure(width: float, height: float, *, dpi: int = 150) -> Figure:
    """Returns an empty figure of a size in inches, with a canvas that needs no display."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Returns the figure as a PNG file.

    Its words are names as often as not: dollars are dollars, and a script that the font lacks becomes boxes.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def quiet(axes: Axes, *, grid: Literal["x", "y"] = "y") -> None:
    """Leaves two thin axes and a faint grid in the given direction."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c4cad1")
    axes.tick_params(colors="#56616d", labelsize=8, length=3)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#e8ebef", linewidth=0.8)


def title(axes: Axes, text: str) -> None:
    """Sets a heading at the left."""
    axes.set_title(text, fontsize=9.5, color=INK, loc="left", pad=7)


def show_image(axes: Axes, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Shows a face without axes; coordinates are fractions of the image, the row downwards."""
    axes.imshow(image, extent=(0, 1, 1, 0), interpolation="bicubic")
    # Marks at the edge must not change the frame: panels stay of one size.
    axes.autoscale(enable=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def row_colours(kinds: Sequence[str]) -> list[str]:
    """Returns a colour a row of the table: fixed ones for known kinds, others in turn."""
    others = iter(OTHER_COLOURS * len(kinds))
    return [ROW_COLOURS.get(kind) or next(others) for kind in kinds]
