"""The camera of code dicts in pixels of the source frame, where it can be smoothed: crops move from frame to frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from asccl_jax.head.drawing_rules import CROP_SIZE

__all__ = ["crop_cameras", "source_cameras"]

_HALF = CROP_SIZE / 2


def source_cameras(cam: Float[np.ndarray, "t 3"], tform: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    """Returns scale in pixels per metre and the origin's x and y in pixels of the source frame.

    A posed vertex (X, Y, Z) lies at (x + scale X, y - scale Y), counted from the middle of the first pixel.

    Args:
      cam: Cameras that look at the crops, as `camera` draws them.
      tform: From pixels of the source frame to those of the crop; upright.
    """
    zoom = tform[:, 0, 0]
    in_crop = (_HALF - 0.5) + _HALF * cam[:, :1] * cam[:, 1:] * (1, -1)
    origin = (in_crop - tform[:, :2, 2]) / zoom[:, None]
    return np.concatenate([(_HALF * cam[:, 0] / zoom)[:, None], origin], axis=1)


def crop_cameras(cameras: Float[np.ndarray, "t 3"], tform: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    """Returns the cameras that look at the crops: `source_cameras` back."""
    zoom = tform[:, 0, 0]
    scale = (zoom * cameras[:, 0] / _HALF)[:, None]
    in_crop = zoom[:, None] * cameras[:, 1:] + tform[:, :2, 2]
    shift = (in_crop - (_HALF - 0.5)) / (_HALF * scale) * (1, -1)
    return np.concatenate([scale, shift], axis=1)
