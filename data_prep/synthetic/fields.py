"""Smooth bumps and steps of which the head's shape, motion and paint are composed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["Field", "bell", "mirrored_bell", "ramp", "smooth_noise"]

Field = Float[np.ndarray, "*grid"]


def bell(x: Field, width: float | Field) -> Field:
    """Returns a Gaussian of standard deviation `width`, 1 at 0."""
    return np.exp(-0.5 * np.square(x / width))


def mirrored_bell(x: Field, centre: float, width: float) -> Field:
    """Returns a Gaussian around +centre and one around -centre: the same feature on both halves of a face."""
    return bell(x - centre, width) + bell(x + centre, width)


def ramp(x: Field, start: float | Field, end: float | Field) -> Field:
    """Returns a smooth step: 0 at `start`, 1 at `end` (which may lie below `start`), flat beyond."""
    t = np.clip((x - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def smooth_noise(
    rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int], *, octaves: int = 1
) -> Float[np.ndarray, "h w"]:
    """Returns noise of about unit variance, smooth at the scale of `cells` cells over the picture.

    Args:
      rng: Source of randomness.
      size: Height and width of the result.
      cells: Rows and columns of the coarsest lattice.
      octaves: Lattices summed, each twice as fine and half as strong as the one before.
    """
    total = np.zeros(size)
    for octave in range(octaves):
        rows, columns = cells[0] << octave, cells[1] << octave
        lattice = rng.standard_normal((rows + 3, columns + 3))
        weights = [_cubic_weights(length, count) for length, count in ((size[0], rows), (size[1], columns))]
        total += 0.5**octave * (weights[0] @ lattice @ weights[1].T)
    return total / max(float(total.std()), 1e-9)


def _cubic_weights(length: int, cells: int) -> Float[np.ndarray, "length knots"]:
    """Uniform cubic B-spline weights of `cells` + 3 knots at `length` positions."""
    position = (np.arange(length) + 0.5) / length * cells
    cell = np.minimum(position.astype(int), cells - 1)
    t = position - cell
    weights = np.zeros((length, cells + 3))
    rows = np.arange(length)
    for offset, value in enumerate(
        ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    ):
        weights[rows, cell + offset] = value
    return weights
