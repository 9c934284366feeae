"""Points and regions of the face on the posed head: the mouth, and where the metric looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.flame import landmarks_in_image_space, posed_head
from asccl_jax.head.head_model import HeadModel
from asccl_jax.image.face_box import landmark_box
from asccl_jax.sampling import Box

__all__ = [
    "LIPS",
    "MouthPoints",
    "lower_face",
    "mouth_points",
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
