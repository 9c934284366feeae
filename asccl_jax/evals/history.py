"""The scalars that a run logged, as series over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

__all__ = ["History", "series", "smoothed"]

History: TypeAlias = Sequence[Mapping[str, int | float]]
"""Lines of scalars, each with its "step"."""


def series(history: History, name: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the steps at which a scalar was logged, and its values."""
    lines = [line for line in history if name in line]
    return np.array([line["step"] for line in lines], np.float64), np.array([line[name] for line in lines], np.float64)


def smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns a centred running mean over a twentieth of the run; the window shrinks at both ends."""
    half = max(len(values) // 40, 1)
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])
