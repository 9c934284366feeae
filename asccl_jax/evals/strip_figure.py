"""Rows of frames as a figure, each row with its heading at the left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from asccl_jax.data.strips import strip
from asccl_jax.evals.figure_style import INK, new_figure

__all__ = ["strip_figure"]

_DPI = 110
_HEADINGS = 1.2
"""Room for headings, inches."""


def strip_figure(rows: Sequence[tuple[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]]], *, wide: float = 10.0) -> Figure:
    """Returns rows of frames, one below the other.

    Args:
      rows: Heading and frames of each row; as many in each, all of one size.
      wide: Width of a row, inches.
    """
    image = strip([frames for _, frames in rows])
    height, width = image.shape[:2]
    figure = new_figure(wide + _HEADINGS, wide * height / width + 0.1, dpi=_DPI)
    axes = figure.subplots()
    axes.imshow(image, interpolation="bicubic")
    axes.set_xticks([])
    each = height / len(rows)
    axes.set_yticks([each * (number + 0.5) for number in range(len(rows))])
    axes.set_yticklabels([name for name, _ in rows], fontsize=8.5, color=INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure
