"""The eye files of the published layout: contours and pupils of both eyes, and in training folders the mouth."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

__all__ = ["eye_points"]

_EYES = (slice(36, 42), slice(42, 48))
_MOUTH = slice(48, 68)
_GREY = np.array([0.2125, 0.7154, 0.0721])


def eye_points(
    image: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"], *, mouth: bool
) -> Float[np.ndarray, "n 2"]:
    """Returns the rows of an eye file: both contours, both pupils (whole pixels), and the mouth where asked for.

    A pupil is where the eye is darkest: the centroid of 1/grey inside the contour.

    Args:
      image: Face crop.
      landmarks: In pixels of the crop.
      mouth: Add landmarks 48..67.
    """
    contours = [np.trunc(landmarks[eye]) for eye in _EYES]
    grey = image @ _GREY / 255
    pupils = [_pupil(grey, contour) for contour in contours]
    rows = [*contours, np.array(pupils)]
    if mouth:
        rows.append(landmarks[_MOUTH])
    return np.concatenate(rows)


def _pupil(grey: Float[np.ndarray, "h w"], contour: Float[np.ndarray, "6 2"]) -> Float[np.ndarray, "2"]:
    inside = np.zeros(grey.shape, np.uint8)
    cv2.fillPoly(inside, [contour.astype(np.int32)], 1)
    weight = np.where((inside > 0) & (grey > 0), 1 / np.where(grey > 0, grey, 1), 0)
    if not weight.any():
        return np.trunc(contour.mean(axis=0))
    rows, columns = np.indices(grey.shape)
    return np.trunc(np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum())
