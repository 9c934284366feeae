"""The face box, along which faces are cut out for the metric: from 68 landmarks, for arrays of any kind.

Coordinates are pixels of the frame. A box holds borders, not centres: pixel 0 reaches from 0 to 1, so a landmark at x,
pixel centres at integers, lies at x + 0.5 on the box's axis. The aspect ratio of the box is lost, so that a place of
the crop is the same place of the face whether the mouth is open or shut.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64, Real

__all__ = ["MARGIN", "inside_frame", "landmark_box", "mask_box"]

MARGIN = 0.1
"""Margin on each side of the landmarks' box, as a fraction of the box."""


_BROWS = 0.2
"""How far brows reach above the eyes, over the height from chin to eyes; .16 to .24 in clips of three people."""


_Arrays: TypeAlias = Any
"""NumPy's or JAX's, which preparation does without."""


def landmark_box(landmarks: Float[_Arrays, "*n points 2"]) -> Float[_Arrays, "*n 4"]:
    """Returns the borders x0, y0, x1, y1 of the face: the landmarks' box, a tenth wider and higher on each side.

    The box may reach out of the frame, see `inside_frame`. Works on NumPy's arrays and on JAX's, traced ones too.

    >>> landmarks = np.zeros((68, 2))
    >>> landmarks[0] = (100, 50)
    >>> landmark_box(landmarks).tolist()
    [-9.5, -4.5, 110.5, 55.5]

    Args:
      landmarks: 68 points (x, y) in pixels of the frame, pixel centres at integers.
    """
    low, high = landmarks.min(axis=-2) + 0.5, landmarks.max(axis=-2) + 0.5
    margin = MARGIN * (high - low)
    return landmarks.__array_namespace__().concat([low - margin, high + margin], axis=-1)


def mask_box(mask: Bool[np.ndarray, "h w"], eye_points: Real[np.ndarray, "14 2"]) -> Float64[np.ndarray, "4"]:
    """Returns about the box that `landmark_box` gives, where nothing but the face's mask and its eyes are known.

    A mask ends where the jaw does at the sides and below, but reaches up to the hair where landmarks end at the brows:
    these are looked for above the eyes. All of the frame where the mask is empty.

    Args:
      mask: Where the face is.
      eye_points: Contours and pupils, see `geometry.eyes`.
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return np.array([0, 0, *mask.shape[::-1]], np.float64)
    chin, eyes = rows.max(), eye_points[:, 1].mean()
    return landmark_box(np.array([[columns.min(), eyes - _BROWS * (chin - eyes)], [columns.max(), chin]]))


def inside_frame(box: Float[_Arrays, "*n 4"], frame_size: tuple[int, int]) -> Float[_Arrays, "*n 4"]:
    """Returns the part of boxes that lies in their frames; arrays as `landmark_box` takes them.

    Args:
      box: Borders x0, y0, x1, y1.
      frame_size: Height and width of the frames.
    """
    height, width = frame_size
    space = box.__array_namespace__()
    far = space.asarray([width, height, width, height], dtype=box.dtype)
    return space.clip(box, 0, space.broadcast_to(far, box.shape))
