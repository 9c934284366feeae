"""What is known of a face before its landmarks are seen: quiet motion, units that only pull one way, few at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cho_solve_banded, cholesky_banded

from data_prep.head_fit.projection import EXPRESSION, JAW, ROTATION, SCALE, TRANSLATION, LandmarkHead

__all__ = [
    "NEUTRAL_UNITS",
    "UNIT_TIES",
    "NormalEquations",
    "PriorSettings",
    "ShapePrior",
    "SharedEquations",
    "StatePrior",
    "solve",
]

# Normal equations of a clip: a dense block per frame, diagonal coupling to the next two frames, shared unknowns.


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


NEUTRAL_UNITS = (
    "brow_inner_up",
    "brow_outer_up",
    "brow_lower",
    "lid_wide",
    "squint",
    "cheek_raise",
    "nose_wrinkle",
    "smile",
    "corner_down",
    "chin_raise",
)
"""Units at rest in a neutral face, speaking or not."""

UNIT_TIES: tuple[Mapping[str, float], ...] = (
    {"cheek_raise": 1.0, "smile": -0.7, "nose_wrinkle": -0.4},  # no landmark lies on the cheek
)
"""Sums of units that are about 0, since landmarks do not tell their parts from each other."""

_REFERENCE_FPS = 30.0


@dataclasses.dataclass(frozen=True)
class PriorSettings:
    """Standard deviations of the priors; defaults from `spec/fitting.md` and runs on synthetic heads.

    Attributes:
      shape_per_frame: Weight of the identity coefficients' unit-variance prior, per frame: the detector's bias is the
        same in every frame, so that many frames are not as many observations. 0 is one prior however many frames.
      size: Of the relative size the shape may give the face: scale and size cannot both be known.
      frontal_rad: Of pitch and yaw.
      jaw_rad: Of the jaw's angle.
      jaw_shut_rad: Of angles below 0.
      unit: Of an action unit.
      side: Of the difference between left and right.
      coefficient: Of an expression coefficient of a head without action units.
      below_zero: Of an action unit below 0 or beyond `unit_limit`.
      unit_limit: Greatest strength of an action unit.
      sparsity: Weight of the sum of the units' strengths.
      tie: Of the sums in `UNIT_TIES`.
      neutral: Of the units in `NEUTRAL_UNITS` where the face is known to be neutral.
      velocity: Of the change from frame to frame at 30 frames/s: log scale, translation (in standard deviations of a
        landmark), rotation, jaw, expression.
      acceleration: Of the change of that change.
    """

    shape_per_frame: float = 0.5
    size: float = 0.005
    frontal_rad: float = 0.15
    jaw_rad: float = 0.30
    jaw_shut_rad: float = 0.01
    unit: float = 0.7
    side: float = 0.25
    coefficient: float = 1.0
    below_zero: float = 0.03
    unit_limit: float = 1.4
    sparsity: float = 0.2
    tie: float = 0.25
    neutral: float = 0.12
    velocity: tuple[float, float, float, float, float] = (0.003, 3.0, 0.03, 0.6, 0.6)
    acceleration: tuple[float, float, float, float, float] = (0.003, 0.7, 0.008, 0.10, 0.15)


class StatePrior:
    """The prior of the states of all frames.

    Args:
      head: Whose expression coefficients the states hold.
      settings: How strong it is.
      frames: How many.
      starts: First frame of each clip but the first: nothing is smooth across clips.
      sigma_px: Standard deviation of a landmark.
      fps: Frames a second.
      neutral: Frames known to be neutral.
    """

    def __init__(
        self,
        head: LandmarkHead,
        settings: PriorSettings,
        *,
        frames: int,
        starts: tuple[int, ...],
        sigma_px: float,
        fps: float,
        neutral: Bool[np.ndarray, " t"],
    ) -> None:
        self._settings = settings
        names = head.unit_names[: head.expression_size]
        self._units = np.array([not name.endswith("_left") for name in names], bool)
        if not names:
            self._units = np.zeros(head.expression_size, bool)
        self._precision = self._precisions(head, neutral, frames)
        self._ties = _tie_rows(names, head.expression_size) / settings.tie
        slow = _REFERENCE_FPS / fps
        self._velocity = _per_component(settings.velocity, head.expression_size, sigma_px, slow) ** -2
        self._acceleration = _per_component(settings.acceleration, head.expression_size, sigma_px, slow**2) ** -2
        self._steps, self._turns = np.ones((max(frames - 1, 0), 1)), np.ones((max(frames - 2, 0), 1))
        for start in starts:
            self._steps[start - 1] = 0
            self._turns[max(start - 2, 0) : start] = 0

    def _precisions(self, head: LandmarkHead, neutral: Bool[np.ndarray, " t"], frames: int) -> Float[np.ndarray, "t d"]:
        settings = self._settings
        names = head.unit_names[: head.expression_size]
        spread = np.full(head.expression_size, settings.coefficient)
        if names:
            spread = np.where(self._units, settings.unit, settings.side)
        precision = np.zeros((frames, 7 + head.expression_size))
        precision[:, ROTATION][:, :2] = settings.frontal_rad**-2
        precision[:, JAW] = settings.jaw_rad**-2
        precision[:, EXPRESSION] = spread**-2.0
        at_rest = [7 + names.index(name) for name in NEUTRAL_UNITS if name in names]
        precision[np.ix_(neutral, np.array(at_rest, int))] = settings.neutral**-2
        return precision

    def _out_of_range(self, states: Float[np.ndarray, "t d"]) -> tuple[np.ndarray, np.ndarray]:
        """How far jaw and units are beyond their limits, and with which precision that is punished."""
        excess, precision = np.zeros_like(states), np.zeros(states.shape[1])
        excess[:, JAW] = np.minimum(states[:, JAW], 0)
        precision[JAW] = self._settings.jaw_shut_rad**-2
        units = states[:, EXPRESSION]
        beyond = np.minimum(units, 0) + np.maximum(units - self._settings.unit_limit, 0)
        excess[:, EXPRESSION] = np.where(self._units, beyond, 0)
        precision[EXPRESSION] = self._settings.below_zero**-2
        return excess, precision

    def cost(self, states: Float[np.ndarray, "t d"]) -> float:
        """Returns the negative log prior, doubled."""
        excess, limits = self._out_of_range(states)
        units = states[:, EXPRESSION]
        total = (self._precision * states**2).sum() + (limits * excess**2).sum()
        total += 2 * self._settings.sparsity * np.abs(units[:, self._units]).sum()
        total += np.square(units @ self._ties.T).sum()
        total += (self._steps * self._velocity * np.diff(states, axis=0) ** 2).sum()
        total += (self._turns * self._acceleration * np.diff(states, n=2, axis=0) ** 2).sum()
        return float(total)

    def add_to(self, equations: NormalEquations, states: Float[np.ndarray, "t d"]) -> None:
        """Adds the prior's Hessian and gradient to a clip's."""
        excess, limits = self._out_of_range(states)
        units = states[:, EXPRESSION]
        diagonal = self._precision + limits * (excess != 0)
        gradient = self._precision * states + limits * excess
        sparse = np.where(self._units, self._settings.sparsity / (np.abs(units) + 0.02), 0)
        diagonal[:, EXPRESSION] += sparse
        gradient[:, EXPRESSION] += sparse * units
        tied = self._ties.T @ self._ties
        equations.blocks[:, EXPRESSION, EXPRESSION] += tied
        gradient[:, EXPRESSION] += units @ tied
        self._add_smoothness(equations, diagonal, gradient, states)
        component = np.arange(states.shape[1])
        equations.blocks[:, component, component] += diagonal
        equations.gradient += gradient

    def _add_smoothness(
        self, equations: NormalEquations, diagonal: np.ndarray, gradient: np.ndarray, states: np.ndarray
    ) -> None:
        weight = self._steps * self._velocity
        slope = weight * np.diff(states, axis=0)
        diagonal[:-1] += weight
        diagonal[1:] += weight
        gradient[:-1] -= slope
        gradient[1:] += slope
        equations.next_frame[:-1] -= weight
        if len(states) < 3:
            return
        weight = self._turns * self._acceleration
        slope = weight * np.diff(states, n=2, axis=0)
        for row, factor in enumerate((1, -2, 1)):
            rows = slice(row, len(states) - 2 + row)
            diagonal[rows] += factor**2 * weight
            gradient[rows] += factor * slope
        equations.next_frame[:-2] -= 2 * weight
        equations.next_frame[1:-1] -= 2 * weight
        equations.next_but_one[:-2] += weight


class ShapePrior:
    """The prior of the identity coefficients: unit variance, and a face of the mean head's size.

    Args:
      head: Whose.
      settings: How strong it is.
      frames: From how many frames the shape is found.
    """

    def __init__(self, head: LandmarkHead, settings: PriorSettings, *, frames: int) -> None:
        strength = settings.shape_per_frame * frames if settings.shape_per_frame else 1.0
        slope = head.size_slope / settings.size
        self._hessian = strength * np.eye(head.identity_size) + np.outer(slope, slope)

    def cost(self, shape: Float[np.ndarray, " i"]) -> float:
        """Returns the negative log prior, doubled."""
        return float(shape @ self._hessian @ shape)

    @property
    def hessian(self) -> Float[np.ndarray, "i i"]:
        """The Hessian, halved; times the shape it is the gradient."""
        return self._hessian


def _per_component(
    spread: tuple[float, float, float, float, float], expression_size: int, sigma_px: float, factor: float
) -> Float[np.ndarray, " d"]:
    components = np.empty(7 + expression_size)
    components[SCALE], components[TRANSLATION] = spread[0], spread[1] * sigma_px
    components[ROTATION], components[JAW], components[EXPRESSION] = spread[2], spread[3], spread[4]
    return components * factor


def _tie_rows(names: tuple[str, ...], size: int) -> Float[np.ndarray, "m e"]:
    ties = [tie for tie in UNIT_TIES if set(tie) <= set(names)]
    rows = np.zeros((len(ties), size))
    for row, tie in zip(rows, ties, strict=True):
        for name, factor in tie.items():
            row[names.index(name)] = factor
    return rows
