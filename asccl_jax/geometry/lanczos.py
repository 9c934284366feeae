"""The interpolation kernel Lanczos-4: eight weights for a place between two samples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

__all__ = ["LANCZOS_BEFORE", "LANCZOS_TAPS", "lanczos_weights"]

LANCZOS_TAPS = 8
"""Samples that an interpolated value takes part of."""

LANCZOS_BEFORE = 3
"""How many of them lie before the nearest one on the left."""


def lanczos_weights(fraction: Float[np.ndarray, " n"]) -> Float32[np.ndarray, "n taps"]:
    """Returns the weights of samples -3 .. 4 for places 0 <= fraction < 1; sum 1, as OpenCV has them.

    sinc(t) sinc(t / 4), where t is the distance to a sample.
    """
    distance = fraction[:, None] - np.arange(-LANCZOS_BEFORE, LANCZOS_TAPS - LANCZOS_BEFORE)
    weights = np.sinc(distance) * np.sinc(distance / 4)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
