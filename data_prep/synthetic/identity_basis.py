"""How heads differ: a smooth, symmetric random deformation of the space they lie in, its components by variance.

A Gaussian process over space moves skin, eyes and teeth together. Deformations are symmetric in the midplane and fade
out toward the chest. With coefficients drawn from N(0, 1) the head varies as the process does.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from data_prep.synthetic.fields import ramp

__all__ = ["identity_basis"]

# Length scale, standard deviation in x and y, standard deviation in z; metres.
_SCALES = ((0.070, 0.0050, 0.0035), (0.035, 0.0025, 0.0015), (0.018, 0.0012, 0.0006))
_INDUCING = 340
_PER_AXIS = (100, 110, 90)
_CHUNK = 256  # Rows whose intermediate results stay in a core's cache.


def identity_basis(vertices: Float[np.ndarray, "n 3"], *, components: int = 300) -> Float[np.ndarray, "n 3 k"]:
    """Returns the components with the largest variance, in metres per unit coefficient.

    Args:
      vertices: The head at rest.
      components: How many to return; at most the 300 that are computed.
    """
    fade = ramp(vertices[:, 1], -0.150, -0.100)
    # A symmetric field is known by one half.
    near = vertices[(fade > 0) & (vertices[:, 2] > -0.10) & (vertices[:, 0] >= 0)]
    support = near[_farthest_points(near, _INDUCING)]
    within, across = _covariances(support, support), _covariances(vertices, support)
    last = len(support) - 1
    half = vertices[:, 0] >= 0  # of a field that is odd in x both halves hold the greatest value, with either sign
    variances, fields = [], []
    for axis, count in enumerate(_PER_AXIS):
        variance, modes = eigh(within[axis].astype(np.float64), subset_by_index=(last - count + 1, last))
        field = across[axis] @ (modes / np.sqrt(np.maximum(variance, 1e-12))).astype(np.float32)
        strongest = np.take_along_axis(field[half], np.abs(field[half]).argmax(axis=0)[None], axis=0)
        variances.append(variance)
        fields.append(fade[:, None] * field * np.sign(strongest))  # eigenvectors come with either sign
    axis_of = np.repeat(np.arange(3), _PER_AXIS)
    order = np.argsort(-np.concatenate(variances), kind="stable")[:components]
    basis = np.zeros((len(vertices), 3, components), np.float32)
    for axis, start in enumerate(np.cumsum((0, *_PER_AXIS[:2]))):
        places = np.flatnonzero(axis_of[order] == axis)
        basis[:, axis, places] = fields[axis][:, order[places] - start]
    return basis


def _covariances(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "3 n m"]:
    """Covariances of the displacements along x, y and z: odd in x across the midplane for x, even for y and z."""
    total = np.zeros((3, len(a), len(b)), np.float32)
    for start in range(0, len(a), _CHUNK):
        rows = slice(start, start + _CHUNK)
        near = a[rows].astype(np.float32)
        for mirror in (1, -1):
            other = (b * [mirror, 1, 1]).astype(np.float32)
            squared = np.square(near).sum(1)[:, None] + np.square(other).sum(1) - 2 * near @ other.T
            for length, plane, depth in _SCALES:
                falloff = np.exp(np.float32(-0.5 / length**2) * squared)
                for axis, scale in enumerate((mirror * plane**2, plane**2, depth**2)):
                    total[axis, rows] += np.float32(0.5 * scale) * falloff
    return total


def _farthest_points(points: Float[np.ndarray, "n 3"], count: int) -> list[int]:
    """Indices of points spread evenly over a cloud."""
    chosen = [0]
    distance = np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(1))
        chosen.append(int(distance.argmax()))
    return chosen
