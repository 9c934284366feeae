"""Where brows and lips run on the mean face: paint and landmarks agree on these curves."""

from __future__ import annotations

import numpy as np

from data_prep.synthetic.fields import Field, bell
from data_prep.synthetic.skin_surface import MOUTH_HALF_WIDTH, MOUTH_Y

__all__ = ["BROW_INNER_X", "BROW_OUTER_X", "brow_height", "lower_lip_outline", "upper_lip_outline"]

BROW_INNER_X, BROW_OUTER_X = 0.0125, 0.0515


def brow_height(x: Field) -> Field:
    """Returns y of the brow's middle line at distance `x` from the midline."""
    t = np.clip((x - BROW_INNER_X) / (BROW_OUTER_X - BROW_INNER_X), -0.2, 1.2)
    return 0.0395 + 0.0052 * np.sin(np.pi * np.clip(t, 0, 1) ** 1.3 * 0.86) - 0.0030 * np.clip(t - 0.6, 0, None)


def upper_lip_outline(x: Field) -> Field:
    """Returns y of the upper lip's border with the skin; the mouth's height at the corners."""
    across = np.clip(1 - np.square(x / (MOUTH_HALF_WIDTH * 1.01)), 0, None)
    bow = 0.0009 * bell(np.abs(x) - 0.0056, 0.0028) - 0.0009 * bell(x, 0.0026)
    return MOUTH_Y + 0.0090 * across**0.85 + bow


def lower_lip_outline(x: Field) -> Field:
    """Returns y of the lower lip's border with the skin."""
    across = np.clip(1 - np.square(x / (MOUTH_HALF_WIDTH * 1.01)), 0, None)
    return MOUTH_Y - 0.0108 * across**0.75
