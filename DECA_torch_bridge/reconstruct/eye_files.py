"""The eye files of the published layout: contours and pupils of both eyes, and in training folders the mouth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from asccl_jax.head.face_points import MOUTH, eye_points

__all__ = ["eye_rows"]


def eye_rows(
    image: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"], *, mouth: bool
) -> Float[np.ndarray, "n 2"]:
    """Returns the rows of an eye file: both contours, both pupils (whole pixels), and the mouth where asked for.

    Args:
      image: Face crop.
      landmarks: In pixels of the crop.
      mouth: Add landmarks 48..67.
    """
    points = eye_points(image, landmarks).astype(np.float64)
    return np.concatenate([points, landmarks[MOUTH]]) if mouth else points
