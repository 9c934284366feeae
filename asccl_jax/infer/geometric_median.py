"""The point with the least sum of distances to given points: a mean that outliers do not pull away."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["geometric_median"]

_LONGEST = 10_000
"""Steps after which the point is taken as it is; far more than the tolerance ever asks for."""


def geometric_median(points: Float[np.ndarray, "n c"], *, tolerance: float = 1e-5) -> Float[np.ndarray, " c"]:
    """Returns the geometric median, computed in float64 and given back in the points' type.

    Weiszfeld's iteration from the mean, with the step of Vardi and Zhang (PNAS 97, 2000) where the iterate falls on
    points themselves.

    >>> geometric_median(np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]])).round(4)
    array([0., 0.])

    Args:
      points: At least one.
      tolerance: Largest last step.
    """
    median = points.mean(axis=0).astype(np.float64)
    exact = points.astype(np.float64)
    for _ in range(_LONGEST):
        moved = _step(exact, median)
        close = np.linalg.norm(moved - median) < tolerance
        median = moved
        if close:
            break
    return median.astype(points.dtype)


def _step(points: Float[np.ndarray, "n c"], median: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    distances = np.linalg.norm(points - median, axis=1)
    apart = distances > 0
    if not apart.any():
        return median
    closeness = 1 / distances[apart]
    target = (closeness / closeness.sum()) @ points[apart]
    here = np.count_nonzero(~apart)
    pull = np.linalg.norm(target - median) * closeness.sum()
    # Points at the iterate hold it back with a weight of one each.
    held = 0.0 if pull == 0 else min(1.0, here / pull)
    return (1 - held) * target + held * median
