"""Affine maps of the plane as their 2 x 3 matrices: applied to points, one after another, and back."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

__all__ = ["inverse", "joined", "moved"]


def moved(points: Real[np.ndarray, "*b n 2"], matrix: Float[np.ndarray, "*b 2 3"]) -> Float[np.ndarray, "*b n 2"]:
    """Returns points where the maps lead them; each set of points has its own matrix."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def joined(second: Float[np.ndarray, "2 3"], first: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """Returns the matrix of one map after another."""
    return second[:, :2] @ first + np.array([[0, 0, 1]]) * second[:, 2:]


def inverse(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """Returns the matrix of the map back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.concatenate([back, -back @ matrix[:, 2:]], axis=1)
