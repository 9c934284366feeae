"""Where parts of a drawn face are, as fractions of its box: for losses that look at one of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax.data.codes import CodeDict
from asccl_jax.geometry.camera import landmarks_in_image_space
from asccl_jax.geometry.face_box import landmark_box
from asccl_jax.geometry.flame import posed_head
from asccl_jax.geometry.head_model import HeadModel
from asccl_jax.geometry.mouth_points import LIPS
from asccl_jax.sampling import Box

__all__ = ["lower_face"]

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
