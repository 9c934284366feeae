"""The most probable states and shape: damped Gauss-Newton with iterative reweighting over whole clips."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from data_prep.head_fit.priors import NormalEquations, PriorSettings, ShapePrior, SharedEquations, StatePrior, solve
from data_prep.head_fit.projection import (
    CONTOUR,
    JAW,
    ROTATION,
    SCALE,
    STATIC,
    TRANSLATION,
    LandmarkHead,
    Projection,
    contour_normals,
    project,
)

__all__ = [
    "GROUPS",
    "FitSettings",
    "LandmarkWeights",
    "Measurements",
    "Solution",
    "data_cost",
    "differences",
    "fit",
    "linearise",
]

# How far the head is from the measured landmarks: weights, robust loss, and its part of the normal equations.

GROUPS = {
    "jaw contour": range(0, 17),
    "brow": range(17, 27),
    "nose": range(27, 36),
    "eye": range(36, 48),
    "outer lip": range(48, 60),
    "inner lip": range(60, 68),
}
"""Landmarks by the part of the face they mark."""

_INTEROCULAR_SHARE = 1 / 65
"""Standard deviation of a landmark as a share of the distance between the eyes: 1 px in clips of 256 px."""


@dataclasses.dataclass(frozen=True)
class LandmarkWeights:
    """How much a landmark counts, as a factor of its residual.

    Attributes:
      chin: Landmarks 5..11 of the outline.
      cheek: The other landmarks of the outline.
      inside: Landmarks 17..67.
    """

    chin: float = 0.6
    cheek: float = 0.25
    inside: float = 1.0

    def per_landmark(self) -> Float[np.ndarray, "68"]:
        """Returns the factor of each landmark."""
        weights = np.full(68, self.inside)
        weights[:CONTOUR] = self.cheek
        weights[5:12] = self.chin
        return weights


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
    """Landmarks of one clip, or of several one after the other.

    Attributes:
      landmarks: Pixels; gaps filled from neighbouring frames.
      found: Which of them were measured.
      normals: Outward normals of the outline.
      sigma_px: Standard deviation of a landmark.
      starts: First frame of each clip but the first.
    """

    landmarks: Float[np.ndarray, "t 68 2"]
    found: Bool[np.ndarray, "t 68"]
    normals: Float[np.ndarray, "t 17 2"]
    sigma_px: float
    starts: tuple[int, ...] = ()

    @classmethod
    def of(cls, clips: list[Float[np.ndarray, "_ 68 2"]]) -> Measurements:
        """Returns the measurements of clips; NaN marks what was not found, each clip has a frame with a face."""
        landmarks = np.concatenate(clips).astype(np.float64)
        found = np.asarray(np.isfinite(landmarks).all(-1))
        filled = np.concatenate([_filled(clip.astype(np.float64)) for clip in clips])
        starts = tuple(int(start) for start in np.cumsum([len(clip) for clip in clips])[:-1])
        eyes = np.linalg.norm(filled[:, 36:42].mean(1) - filled[:, 42:48].mean(1), axis=-1)
        sigma = float(np.median(eyes)) * _INTEROCULAR_SHARE
        return cls(filled, found, contour_normals(filled), sigma, starts)


def _filled(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 68 2"]:
    """Fills gaps in time linearly; a landmark that was never found takes the mean of the others."""
    frames = np.arange(len(landmarks))
    columns = landmarks.reshape(len(landmarks), -1).copy()
    for column in columns.T:
        known = np.isfinite(column)
        if known.any() and not known.all():
            column[~known] = np.interp(frames[~known], frames[known], column[known])
    filled = columns.reshape(landmarks.shape)
    middle = np.broadcast_to(np.nanmean(filled, axis=1, keepdims=True), filled.shape)
    return np.where(np.isfinite(filled), filled, middle)


def differences(projection: Projection, measured: Measurements) -> Float[np.ndarray, "t 68 2"]:
    """Fitted less measured; along the normal only for the outline."""
    difference = projection.points - measured.landmarks
    normals = measured.normals
    difference[:, :CONTOUR] = (difference[:, :CONTOUR] * normals).sum(-1, keepdims=True) * normals
    return difference


def _squared(
    difference: Float[np.ndarray, "t 68 2"], measured: Measurements, weights: Float[np.ndarray, "68"]
) -> Float[np.ndarray, "t 68"]:
    return np.square(difference).sum(-1) * np.square(weights / measured.sigma_px) * measured.found


def data_cost(
    projection: Projection, measured: Measurements, weights: Float[np.ndarray, "68"], *, freedom: float
) -> float:
    """Returns the negative log likelihood, doubled, of Student-t landmarks with so many degrees of freedom."""
    squared = _squared(differences(projection, measured), measured, weights)
    return float(freedom**2 * np.log1p(squared / freedom**2).sum())


def linearise(
    head: LandmarkHead,
    states: Float[np.ndarray, "t d"],
    shape: Float[np.ndarray, " i"],
    measured: Measurements,
    weights: Float[np.ndarray, "68"],
    *,
    freedom: float,
    share: bool,
) -> tuple[NormalEquations, SharedEquations | None]:
    """Returns the normal equations of the reweighted landmarks: of the states and of the shape, if unknown.

    Args:
      head: The head.
      states: Where to linearise.
      shape: Likewise.
      measured: The landmarks.
      weights: Factor of each landmark.
      freedom: Of the Student-t distribution.
      share: Whether the shape is unknown.
    """
    projection, slopes = project(head, states, shape, measured.normals, derivatives=True, identity_derivatives=share)
    assert slopes is not None
    squared = _squared(differences(projection, measured), measured, weights)
    precision = np.square(weights / measured.sigma_px) * measured.found / (1 + squared / freedom**2)
    root = np.sqrt(precision)[..., None]
    offset = _rows((projection.points - measured.landmarks)[..., None], measured.normals, root)[..., 0]
    by_state = _rows(slopes.state, measured.normals, root)
    transposed = by_state.transpose(0, 2, 1)
    nothing = np.zeros_like(states)
    gradient = (transposed @ offset[..., None])[..., 0]
    equations = NormalEquations(transposed @ by_state, nothing, nothing.copy(), gradient)
    if slopes.identity is None:
        return equations, None
    by_shape = _rows(slopes.identity, measured.normals, root)
    flat = by_shape.reshape(-1, by_shape.shape[-1])
    shared = SharedEquations(transposed @ by_shape, flat.T @ flat, flat.T @ offset.ravel())
    return equations, shared


def _rows(
    values: Float[np.ndarray, "t 68 2 c"], normals: Float[np.ndarray, "t 17 2"], root: Float[np.ndarray, "t 68 1"]
) -> Float[np.ndarray, "t r c"]:
    """Weighted rows of the residual: one per landmark of the outline, along its normal, and x and y of the others."""
    along = (values[:, :CONTOUR] * normals[..., None]).sum(2) * root[:, :CONTOUR]
    static = (values[:, CONTOUR:] * root[:, CONTOUR:, None]).reshape(len(values), -1, values.shape[-1])
    return np.concatenate([along, static], axis=1)


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
