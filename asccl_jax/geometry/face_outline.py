"""Where a face is in an upright picture, by its landmarks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Real
from scipy.spatial import ConvexHull

from asccl_jax.geometry.polygon import polygon_mask

__all__ = ["face_outline"]

_JAW, _BROWS, _CHIN = slice(0, 17), slice(17, 27), 8
_FOREHEAD = 0.3
"""How far a face reaches above its brows, over the height from chin to brows: to the hairline of most."""


def face_outline(landmarks: Real[np.ndarray, "68 2"], shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Returns the inside of the smallest convex outline around the jaw and a forehead above the brows.

    A face segmentation, which the published pipeline has, sees where hair begins; landmarks do not.

    Args:
      landmarks: In pixels of a picture in which the face is upright, pixel centres at integers.
      shape: Height and width of the picture.
    """
    brows = landmarks[_BROWS].astype(np.float64)
    height = landmarks[_CHIN, 1] - brows[:, 1].mean()
    points = np.concatenate([landmarks[_JAW], brows, brows - np.array([0, _FOREHEAD * height])])
    hull = ConvexHull(points)
    return polygon_mask(np.rint(points[hull.vertices]).astype(np.int64), shape)
