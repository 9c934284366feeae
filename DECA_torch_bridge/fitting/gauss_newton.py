"""The most probable states and shape: damped Gauss-Newton with iterative reweighting over whole clips."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from DECA_torch_bridge.fitting.block_banded import NormalEquations, SharedEquations, solve
from DECA_torch_bridge.fitting.landmark_head import STATIC, LandmarkHead
from DECA_torch_bridge.fitting.priors import PriorSettings, ShapePrior, StatePrior
from DECA_torch_bridge.fitting.projection import JAW, ROTATION, SCALE, TRANSLATION, project
from DECA_torch_bridge.fitting.residuals import LandmarkWeights, Measurements, data_cost, differences, linearise

__all__ = ["FitSettings", "Solution", "fit"]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a fit is done.

    Attributes:
      priors: See there.
      weights: How much each landmark counts.
      freedom: Degrees of freedom of the landmarks' Student-t distribution.
      iterations: At most.
      tolerance: Relative fall of the cost that ends the fit.
    """

    priors: PriorSettings = dataclasses.field(default_factory=PriorSettings)
    weights: LandmarkWeights = dataclasses.field(default_factory=LandmarkWeights)
    freedom: float = 3.0
    iterations: int = 14
    tolerance: float = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """What a fit found.

    Attributes:
      states: Of each frame, see `projection`.
      shape: Identity coefficients.
      landmarks: Fitted landmarks in pixels; those of the outline beside the measured ones, moved along the normal.
      iterations: How many it took.
      costs: Before the first and after each.
    """

    states: Float[np.ndarray, "t d"]
    shape: Float[np.ndarray, " i"]
    landmarks: Float[np.ndarray, "t 68 2"]
    iterations: int
    costs: tuple[float, ...]


_TRUSTING = 2  # iterations whose losses are nearly quadratic: far from the face every landmark looks like an outlier
_ATTEMPTS = 6


def fit(
    head: LandmarkHead,
    measured: Measurements,
    *,
    settings: FitSettings,
    fps: float = 30.0,
    shape: Float[np.ndarray, " i"] | None = None,
    neutral: Bool[np.ndarray, " t"] | None = None,
) -> Solution:
    """Returns the most probable states of all frames and, where none is given, shape of the person.

    Args:
      head: The head as the detector sees it.
      measured: Landmarks of one clip or several.
      settings: How.
      fps: Frames a second.
      shape: Known identity coefficients; None finds them.
      neutral: Frames known to be neutral.
    """
    problem = _Problem(head, measured, settings, fps=fps, share=shape is None, neutral=neutral)
    states = initial_states(head, measured)
    beta = np.zeros(head.identity_size) if shape is None else shape.astype(np.float64)
    damping, costs = 1e-3, [problem.cost(states, beta, settings.freedom)]
    iteration = 0
    for iteration in range(settings.iterations):
        trusting = iteration < _TRUSTING
        freedom = settings.freedom * (10**0.5 if trusting else 1)
        equations, shared = problem.linearised(states, beta, freedom)
        before = problem.cost(states, beta, freedom)
        for _ in range(_ATTEMPTS):
            step, shape_step = solve(equations, shared, damping=damping)
            tried = beta if shape_step is None else beta + shape_step
            after = problem.cost(states + step, tried, freedom)
            if after < before or trusting:
                break
            damping *= 10
        else:
            break
        states, beta = states + step, tried
        damping = max(damping / 5, 1e-6)
        costs.append(after)
        if iteration > _TRUSTING and abs(before - after) < settings.tolerance * before:
            break
    projection, _ = project(head, states, beta, measured.normals)
    landmarks = measured.landmarks + differences(projection, measured)
    return Solution(states, beta, landmarks, iteration + 1, tuple(costs))


class _Problem:
    """The cost of states and shape, and its normal equations."""

    def __init__(
        self,
        head: LandmarkHead,
        measured: Measurements,
        settings: FitSettings,
        *,
        fps: float,
        share: bool,
        neutral: Bool[np.ndarray, " t"] | None,
    ) -> None:
        self._head, self._measured, self._share = head, measured, share
        self._weights = settings.weights.per_landmark()
        frames = len(measured.landmarks)
        self._state_prior = StatePrior(
            head,
            settings.priors,
            frames=frames,
            starts=measured.starts,
            sigma_px=measured.sigma_px,
            fps=fps,
            neutral=np.zeros(frames, bool) if neutral is None else neutral,
        )
        self._shape_prior = ShapePrior(head, settings.priors, frames=int(measured.found.any(1).sum()))

    def cost(self, states: Float[np.ndarray, "t d"], shape: Float[np.ndarray, " i"], freedom: float) -> float:
        projection, _ = project(self._head, states, shape, self._measured.normals)
        shape_cost = self._shape_prior.cost(shape) if self._share else 0.0
        misfit = data_cost(projection, self._measured, self._weights, freedom=freedom)
        return misfit + self._state_prior.cost(states) + shape_cost

    def linearised(
        self, states: Float[np.ndarray, "t d"], shape: Float[np.ndarray, " i"], freedom: float
    ) -> tuple[NormalEquations, SharedEquations | None]:
        equations, shared = linearise(
            self._head, states, shape, self._measured, self._weights, freedom=freedom, share=self._share
        )
        self._state_prior.add_to(equations, states)
        if shared is not None:
            shared.block += self._shape_prior.hessian
            shared.gradient += self._shape_prior.hessian @ shape
        return equations, shared


def initial_states(head: LandmarkHead, measured: Measurements) -> Float[np.ndarray, "t d"]:
    """Returns states of a frontal face at rest that lies over the landmarks 17..67: place, size and roll."""
    model = (head.points[:STATIC] - head.centre)[:, :2] * (1, -1)
    points = measured.landmarks[:, 68 - STATIC :]
    middle = points.mean(1)
    flat = (points - middle[:, None]) @ (1, 1j)
    reference = model @ (1, 1j)
    similarity = flat @ reference.conj() / np.square(np.abs(reference)).sum()
    states = np.zeros((len(points), 7 + head.expression_size))
    states[:, SCALE] = np.log(np.abs(similarity))
    states[:, TRANSLATION] = middle
    states[:, ROTATION.stop - 1] = -np.angle(similarity)  # a turn that is clockwise in the picture is negative here
    states[:, JAW] = 0.05
    return states
