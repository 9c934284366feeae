"""A face picture put back into the frame that it was cropped from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

from asccl_jax.geometry.resize import resize_lanczos

__all__ = ["paste"]


def paste(
    frame: UInt8[np.ndarray, "h w 3"], picture: Float32[np.ndarray, "ph pw 3"], box: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a frame with a picture in a box of it, rounded once; what lies beyond the frame is cut off.

    Args:
      frame: The whole frame.
      picture: From 0 to 1, cut off there; brought to the box's size by Lanczos-4 if it has another.
      box: Left, top, right and bottom in whole pixels, the last two exclusive.
    """
    left, top, right, bottom = box
    height, width = frame.shape[:2]
    pasted = frame.copy()
    rows = slice(min(max(top, 0), height), min(max(bottom, 0), height))
    columns = slice(min(max(left, 0), width), min(max(right, 0), width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return pasted
    fitted = resize_lanczos(picture, (bottom - top, right - left))
    shown = fitted[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    pasted[rows, columns] = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    return pasted
