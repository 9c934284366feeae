"""Points and regions of the face on the head: mouth, eyes, where the metric looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Int64, Real, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.flame import HeadModel, landmarks_in_image_space, posed_head
from asccl_jax.image.face_crop import landmark_box
from asccl_jax.image.polygon import polygon_mask
from asccl_jax.sampling import Box

__all__ = [
    "EYE_NOISE_DRAWS",
    "LIPS",
    "MOUTH",
    "MouthPoints",
    "draw_eyes",
    "edited_eye_points",
    "eye_points",
    "lower_face",
    "median_point",
    "mouth_points",
    "noisy_eye_points",
    "pupil_centre",
]

LIPS = slice(48, 68)
"""Outer and inner contour of the lips among the 68 landmarks."""

MouthPoints: TypeAlias = Callable[[Float[np.ndarray, "n c"], CodeDict], Float[np.ndarray, "n k 3"]]
"""Coefficients, and the code dict of the person who has them -> points of the mouth, in metres."""

_CONTOUR = 17


def mouth_points(head: HeadModel) -> MouthPoints:
    """Returns the function that gives the lips' landmarks: x to the right of the picture, y up, z to the viewer.

    Only the vertices around those landmarks are moved, and the joints, so that a clip takes milliseconds. The head
    itself is not turned: what differs between two sets of coefficients is then the mouth alone.
    """
    part = _lips_of(head)

    @jax.jit
    def lips(shape: Array, expression: Array, pose: Array) -> Array:
        return posed_head(part, shape, expression, pose).landmarks3d[:, LIPS]

    def points(coefficients: Float[np.ndarray, "n c"], codes: CodeDict) -> Float[np.ndarray, "n k 3"]:
        sizes = codes.shape.shape[1], coefficients.shape[1] - 1
        if sizes != (head.shape_size, head.expression_size):
            raise InputError(
                f"{sizes[0]} shape and {sizes[1]} expression coefficients: this head takes {head.shape_size} and"
                f" {head.expression_size}"
            )
        pose = np.concatenate([np.zeros((len(codes), 3)), coefficients[:, :1], codes.pose[:, 4:]], axis=1)
        inputs = (codes.shape, coefficients[:, 1:], pose)
        return np.asarray(lips(*(jnp.asarray(values, jnp.float32) for values in inputs)))

    return points


def _lips_of(head: HeadModel) -> HeadModel:
    """The head cut down to the triangles of the mouth's landmarks and the vertices that carry joints."""
    lips = head.full_landmark_faces[LIPS]
    regressing = np.flatnonzero((head.joint_regressor != 0).any(axis=0))
    kept = np.union1d(head.faces[lips].ravel(), regressing)
    places = np.zeros(len(head.v_template), np.int32)
    places[kept] = np.arange(len(kept))
    # Landmarks elsewhere lose their triangles and stand on one of the lips; they are not read.
    full = np.zeros_like(head.full_landmark_faces)
    full[LIPS] = np.arange(len(lips))
    return dataclasses.replace(
        head,
        v_template=head.v_template[kept],
        faces=places[head.faces[lips]],
        identity_basis=head.identity_basis[kept],
        expression_basis=head.expression_basis[kept],
        pose_basis=head.pose_basis[kept],
        joint_regressor=head.joint_regressor[:, kept],
        skinning_weights=head.skinning_weights[kept],
        static_landmark_faces=full[_CONTOUR:],
        dynamic_landmark_faces=np.zeros_like(head.dynamic_landmark_faces),
        full_landmark_faces=full,
        mouth_faces=np.zeros(0, np.int32),
    )


# Eyes and mouth of a face picture: where the pupils are, the discs drawn there, and the middles to crop around.
#
# Points are (x, y) in pixels, pixel centres at integers. The fourteen points of the eyes are the contour of the eye on
# the left of the picture (landmarks 36..41), that of the other (42..47), and both pupils.

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


# Where parts of a drawn face are, as fractions of its box: for losses that look at one of them.

_CHIN = slice(6, 11)
_BESIDE = 0.3
"""Share of the mouth's width that belongs to the region on either side."""


def lower_face(head: HeadModel, template: CodeDict) -> Box:
    """Returns the region from the line between the lips to the chin, somewhat wider than the mouth.

    What lies there shows how far the jaw is open and, beside that, less of an emotion than lips and cheeks do.

    Args:
      head: The head.
      template: Code dict of one frame: identity, pose and camera; the face is at rest.

    Returns:
      First and last row, first and last column, 0 to 1 from border to border of the face's box (`landmark_box`).
    """
    pose = np.array(template.pose, np.float32)
    pose[:, 3:] = 0
    inputs = (template.shape, np.zeros((1, head.expression_size)), pose)
    posed = jax.jit(lambda *values: posed_head(head, *values).landmarks3d)(
        *(jnp.asarray(values, jnp.float32) for values in inputs)
    )
    points = np.asarray(landmarks_in_image_space(posed, jnp.asarray(template.cam, jnp.float32)))[0].astype(np.float64)
    left, top, right, bottom = landmark_box(points - 0.5)
    columns, rows = ((points - (left, top)) / (right - left, bottom - top)).T
    beside = _BESIDE * np.ptp(columns[LIPS])
    box = (rows[LIPS].mean(), rows[_CHIN].max(), columns[LIPS].min() - beside, columns[LIPS].max() + beside)
    first_row, last_row, first_column, last_column = np.clip(box, 0, 1).tolist()
    return first_row, last_row, first_column, last_column
