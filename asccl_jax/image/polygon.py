"""Polygons filled on pixels, as OpenCV fills them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Int64, Real
from scipy.spatial import ConvexHull

__all__ = [
    "face_outline",
    "polygon_mask",
]

_ONE = 1 << 16
"""Steps of OpenCV's coordinates in a pixel."""


def polygon_mask(points: Int[np.ndarray, "n 2"], shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Returns where a polygon is, its outline included, pixel for pixel as OpenCV's `fillPoly` has it.

    Equal as long as the polygon lies in the picture; what reaches beyond is cut off.

    Args:
      points: Corners.
      shape: Height and width of the picture.
    """
    height, width = shape
    corners = points.astype(np.int64)
    ends = np.roll(corners, -1, axis=0)
    filled = np.zeros((height, width), bool)
    for start, end in zip(corners, ends, strict=True):
        columns, rows = _line(start, end).T
        shown = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        filled[rows[shown], columns[shown]] = True
    upward = (corners[:, 1] > ends[:, 1])[:, None]
    top, bottom = np.where(upward, ends, corners), np.where(upward, corners, ends)
    edges = [(*first, *last) for first, last in zip(top.tolist(), bottom.tolist(), strict=True) if first[1] < last[1]]
    for row in range(max(corners[:, 1].min(), 0), min(corners[:, 1].max(), height)):
        crossings = sorted(
            x0 * _ONE + int((x1 - x0) * _ONE / (y1 - y0)) * (row - y0) for x0, y0, x1, y1 in edges if y0 <= row < y1
        )
        for first, last in zip(crossings[::2], crossings[1::2], strict=True):
            filled[row, max(-(-first // _ONE), 0) : max(last // _ONE + 1, 0)] = True
    return filled


def _line(start: Int64[np.ndarray, "2"], end: Int64[np.ndarray, "2"]) -> Int64[np.ndarray, "k 2"]:
    """Pixels of Bresenham's line, walked from the left, halves rounded towards its beginning."""
    if end[0] < start[0]:
        start, end = end, start
    way = end - start
    length = int(np.abs(way).max())
    steps = np.arange(length + 1)[:, None]
    distance = np.abs(way) * steps
    # The smallest whole number that is at least distance / length - 1/2.
    offset = -((length - 2 * distance) // (2 * max(length, 1)))
    return start + np.sign(way) * offset


# Where a face is in an upright picture, by its landmarks.

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
