"""Colours as networks have them, -1..1, and as pictures do, 0..255."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

__all__ = ["to_image"]


def to_image(frame: Float[np.ndarray, "*b h w 3"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Returns a picture of -1..1 as 0..255, clipped and rounded (upstream rounds down).

    >>> to_image(np.array([[[-1.0, 0.0, 1.2]]]))
    array([[[  0, 128, 255]]], dtype=uint8)
    """
    return np.rint(np.clip((frame + 1) * 127.5, 0, 255)).astype(np.uint8)
