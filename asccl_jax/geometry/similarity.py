"""The similarity between two sets of points: turn, size and shift that lay one upon the other (Umeyama 1991)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["similarity"]


def similarity(
    source: Float[np.ndarray, "n d"], target: Float[np.ndarray, "n d"], *, scale: bool = True
) -> Float[np.ndarray, "m m"]:
    """Returns the homogeneous matrix of the similarity that brings `source` nearest to `target`.

    No reflection; NaN where all source points are one.

    Args:
      source: Points.
      target: Where each of them should come to lie.
      scale: Whether sizes may change too; a turn and a shift alone otherwise.
    """
    count, dimensions = source.shape
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    covariance = (target - target_mean).T @ centred / count
    left, spread, right = np.linalg.svd(covariance)
    rank = np.linalg.matrix_rank(covariance)
    matrix = np.eye(dimensions + 1)
    if rank == 0:
        return np.full_like(matrix, np.nan)
    signs = np.ones(dimensions)
    if np.linalg.det(covariance) < 0:
        signs[-1] = -1
    turn = signs
    if rank == dimensions - 1:  # a line in the plane: its determinant says nothing of a reflection
        turn = np.ones(dimensions)
        turn[-1] = 1 if np.linalg.det(left) * np.linalg.det(right) > 0 else -1
    rotation = (left * turn) @ right
    size = (spread @ signs) / centred.var(axis=0).sum() if scale else 1.0
    matrix[:dimensions, :dimensions] = size * rotation
    matrix[:dimensions, dimensions] = target_mean - size * rotation @ source_mean
    return matrix
