"""Normal equations of a clip: a dense block per frame, diagonal coupling to the next two frames, shared unknowns."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_solve_banded, cholesky_banded

__all__ = ["NormalEquations", "SharedEquations", "solve"]


@dataclasses.dataclass(eq=False)
class NormalEquations:
    """Hessian and gradient of a cost over the states of all frames.

    Attributes:
      blocks: Hessian of each frame's state.
      next_frame: Entries that couple a component with itself in the next frame; the last row is 0.
      next_but_one: Likewise two frames on; the last two rows are 0.
      gradient: Gradient.
    """

    blocks: Float[np.ndarray, "t d d"]
    next_frame: Float[np.ndarray, "t d"]
    next_but_one: Float[np.ndarray, "t d"]
    gradient: Float[np.ndarray, "t d"]


@dataclasses.dataclass(eq=False)
class SharedEquations:
    """The part of the normal equations that belongs to unknowns shared by all frames.

    Attributes:
      coupling: Mixed second derivatives.
      block: Hessian of the shared unknowns.
      gradient: Their gradient.
    """

    coupling: Float[np.ndarray, "t d i"]
    block: Float[np.ndarray, "i i"]
    gradient: Float[np.ndarray, " i"]


def solve(
    equations: NormalEquations, shared: SharedEquations | None, *, damping: float
) -> tuple[Float[np.ndarray, "t d"], Float[np.ndarray, " i"] | None]:
    """Returns the Newton step of the states and of the shared unknowns.

    The states' matrix is banded: Cholesky along the band, then the Schur complement of the shared unknowns.

    Args:
      equations: Of the states.
      shared: Of the shared unknowns; None leaves them as they are.
      damping: Relative growth of the diagonals (Levenberg-Marquardt).
    """
    frames, size = equations.gradient.shape
    factor = cholesky_banded(_band(equations, damping), lower=True, overwrite_ab=True, check_finite=False)
    right = equations.gradient.reshape(-1, 1)
    if shared is None:
        step = cho_solve_banded((factor, True), -right, check_finite=False)
        return step.reshape(frames, size), None
    coupling = shared.coupling.reshape(frames * size, -1)
    columns = cho_solve_banded((factor, True), np.concatenate([coupling, right], axis=1), check_finite=False)
    by_shared, alone = columns[:, :-1], columns[:, -1]
    complement = shared.block + damping * np.diag(np.diag(shared.block)) - coupling.T @ by_shared
    shared_step = np.linalg.solve(complement, coupling.T @ alone - shared.gradient)
    return -(alone + by_shared @ shared_step).reshape(frames, size), shared_step


def _band(equations: NormalEquations, damping: float) -> Float[np.ndarray, "b n"]:
    """The lower band in LAPACK's layout: row o holds the o-th subdiagonal."""
    frames, size = equations.gradient.shape
    band = np.zeros((2 * size + 1, frames, size))
    for offset in range(size):
        band[offset, :, : size - offset] = np.diagonal(equations.blocks, -offset, axis1=1, axis2=2)
    band[0] *= 1 + damping
    band[size] = equations.next_frame
    band[2 * size] = equations.next_but_one
    return band.reshape(2 * size + 1, frames * size)
