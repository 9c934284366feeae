"""Eyes and mouth of a face picture: where the pupils are, the discs drawn there, and the middles to crop around.

Points are (x, y) in pixels, pixel centres at integers. The fourteen points of the eyes are the contour of the eye on
the left of the picture (landmarks 36..41), that of the other (42..47), and both pupils.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Int32, Int64, Real, UInt8

from asccl_jax.image.polygon import polygon_mask

__all__ = [
    "EYE_NOISE_DRAWS",
    "MOUTH",
    "draw_eyes",
    "edited_eye_points",
    "eye_points",
    "median_point",
    "noisy_eye_points",
    "pupil_centre",
]

MOUTH = slice(48, 68)
"""The mouth among 68 landmarks."""


EYE_NOISE_DRAWS = 3
"""Standard normal numbers that `noisy_eye_points` takes."""


_CONTOURS = (slice(36, 42), slice(42, 48))


_LEFT, _RIGHT = [0, 1, 2, 3, 4, 5, 12], [6, 7, 8, 9, 10, 11, 13]


_GREY = np.array([0.2125, 0.7154, 0.0721])


def eye_points(image: UInt8[np.ndarray, "h w 3"], landmarks: Real[np.ndarray, "68 2"]) -> Int64[np.ndarray, "14 2"]:
    """Returns the points of the eyes in whole pixels, as published: cut off towards zero, not rounded.

    Args:
      image: The face; a pupil is where its eye is darkest.
      landmarks: Of the face.
    """
    contours = [np.trunc(landmarks[contour]).astype(np.int64) for contour in _CONTOURS]
    grey = image @ _GREY / 255
    pupils = [np.trunc(pupil_centre(grey, contour)).astype(np.int64) for contour in contours]
    return np.concatenate([*contours, np.stack(pupils)])


def pupil_centre(grey: Float[np.ndarray, "h w"], contour: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, "2"]:
    """Returns the centroid of 1 / grey inside a contour; that of the contour where all inside is black or cut off."""
    inside = polygon_mask(contour, grey.shape) & (grey > 0)
    rows, columns = np.nonzero(inside)
    if not rows.size:
        return contour.mean(axis=0)
    weight = 1 / grey[rows, columns]
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def draw_eyes(points: Int[np.ndarray, "14 2"], shape: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture of the gaze: a red disc at each pupil, half as wide as the eye is open, on black.

    Args:
      points: Of the eyes.
      shape: Height and width of the picture.
    """
    image = np.zeros((*shape, 3), np.uint8)
    for side in (_LEFT, _RIGHT):
        eye = points[side].astype(np.float64)
        radius = int((np.linalg.norm(eye[1] - eye[4]) + np.linalg.norm(eye[2] - eye[5])) / 4)
        offsets = np.arange(-radius, radius)
        rows, columns = (
            grid[np.hypot(offsets[:, None], offsets[None]) < radius]
            for grid in np.meshgrid(offsets, offsets, indexing="ij")
        )
        x, y = points[side[-1]].tolist()
        image[np.clip(y + rows, 0, shape[0] - 1), np.clip(x + columns, 0, shape[1] - 1)] = (255, 0, 0)
    return image


def noisy_eye_points(points: Int[np.ndarray, "14 2"], draws: Float[np.ndarray, "3"]) -> Int64[np.ndarray, "14 2"]:
    """Returns the points of the eyes as training disturbs them: each eye scaled and moved to the side.

    Args:
      points: Of the eyes.
      draws: Standard normal: 2 % of scale, 2 pixels to the right for the left eye, 2 to the left for the right one.
    """
    scale, left, right = 1 + 0.02 * draws[0], 2 * draws[1], -2 * draws[2]
    noisy = points.astype(np.float64)
    for side, shift in ((_LEFT, left), (_RIGHT, right)):
        middle = noisy[side].mean(axis=0)
        noisy[side] = (noisy[side] - middle) * scale + middle + [shift, 0]
    return np.trunc(noisy).astype(np.int64)


def edited_eye_points(
    source: Real[np.ndarray, "14 2"], landmarks: Real[np.ndarray, "68 2"]
) -> Int64[np.ndarray, "14 2"]:
    """Returns the points of the eyes of an edited face: its contours, and pupils that moved as their contours did.

    Args:
      source: Points of the eyes before the edit.
      landmarks: Of the edited face, in the same coordinates.
    """
    contours = [landmarks[contour].astype(np.float64) for contour in _CONTOURS]
    pupils = [
        source[side[-1]] + (contour.mean(axis=0) - source[side[:-1]].mean(axis=0))
        for side, contour in zip((_LEFT, _RIGHT), contours, strict=True)
    ]
    return np.trunc(np.concatenate([*contours, np.stack(pupils)])).astype(np.int64)


def median_point(points: Real[np.ndarray, "n 2"]) -> Int32[np.ndarray, "2"]:
    """Returns the middle of a mouth or of the eyes, as published: coordinates cut off, their medians cut off again."""
    return np.trunc(np.median(np.trunc(points), axis=0)).astype(np.int32)
