"""Frames side by side in one picture, a row a way of making them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from asccl_jax.errors import InputError

__all__ = ["difference_image", "strip"]

_GAP = 2
_PAPER = 255
_GAIN = 3


def strip(rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]]) -> UInt8[np.ndarray, "y x 3"]:
    """Returns one picture of frames, with thin white lines between them.

    >>> strip([[np.zeros((4, 4, 3), np.uint8)] * 3] * 2).shape
    (10, 16, 3)

    Args:
      rows: Frames of each row, all of one size; as many in every row.

    Raises:
      InputError: No frame, or rows of different lengths.
    """
    counts = {len(row) for row in rows}
    if len(counts) != 1 or not rows[0]:
        raise InputError(f"strip of rows with {sorted(counts)} frames: expected as many in each, one or more")
    lines = [np.concatenate(_parted(row, axis=1), axis=1) for row in rows]
    return np.concatenate(_parted(lines, axis=0), axis=0)


def difference_image(
    image: UInt8[np.ndarray, "h w 3"], truth: UInt8[np.ndarray, "h w 3"], *, gain: int = _GAIN
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the absolute difference of two pictures, made brighter so that it is seen."""
    difference = np.abs(image.astype(np.int32) - truth.astype(np.int32))
    return np.minimum(gain * difference, 255).astype(np.uint8)


def _parted(pictures: Sequence[np.ndarray], *, axis: int) -> list[np.ndarray]:
    """The pictures with a white line between each two."""
    shape = list(pictures[0].shape)
    shape[axis] = _GAP
    line = np.full(shape, _PAPER, np.uint8)
    return [part for picture in pictures for part in (line, picture)][1:]
