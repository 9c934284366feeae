"""How far the head is from the measured landmarks: weights, robust loss, and its part of the normal equations."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from DECA_torch_bridge.fitting.block_banded import NormalEquations, SharedEquations
from DECA_torch_bridge.fitting.contour import CONTOUR, contour_normals
from DECA_torch_bridge.fitting.landmark_head import LandmarkHead
from DECA_torch_bridge.fitting.projection import Projection, project

__all__ = ["GROUPS", "LandmarkWeights", "Measurements", "data_cost", "differences", "linearise"]

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
