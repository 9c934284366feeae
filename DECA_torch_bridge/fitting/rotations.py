"""Rotations of whole clips with their derivatives: axis-angle vectors for the head, one angle for the jaw."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["head_rotations", "jaw_rotations", "skew"]


def skew(vectors: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """Returns the matrices that take the cross product with vectors from the left."""
    matrices = np.zeros((*vectors.shape, 3))
    for row, column, axis, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 2, 0, -1)):
        matrices[..., row, column] = sign * vectors[..., axis]
        matrices[..., column, row] = -sign * vectors[..., axis]
    return matrices


def head_rotations(
    axis_angles: Float[np.ndarray, "t 3"],
) -> tuple[Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3 3"]]:
    """Returns rotation matrices R and the left Jacobians L of the exponential map.

    A small change d of an axis-angle vector turns a rotated point p by the vector L d: dp = (L d) x p.
    """
    angle = np.linalg.norm(axis_angles, axis=-1)[:, None, None]
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    sine = np.where(small, 1 - angle**2 / 6, np.sin(safe) / safe)
    cosine = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    cubic = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    cross = skew(axis_angles)
    squared = cross @ cross
    return np.eye(3) + sine * cross + cosine * squared, np.eye(3) + cosine * cross + cubic * squared


def jaw_rotations(
    angles: Float[np.ndarray, " t"],
) -> tuple[Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3 3"]]:
    """Returns rotations about the x axis and their derivatives by the angle; positive angles open the mouth."""
    rotation, slope = np.zeros((len(angles), 3, 3)), np.zeros((len(angles), 3, 3))
    cosine, sine = np.cos(angles), np.sin(angles)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 1, 2], rotation[:, 2, 1] = -sine, sine
    slope[:, 1, 1] = slope[:, 2, 2] = -sine
    slope[:, 1, 2], slope[:, 2, 1] = -cosine, cosine
    return rotation, slope
