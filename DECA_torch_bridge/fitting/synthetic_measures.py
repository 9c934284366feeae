"""Scores of a fit against synthetic truth: jaw, emotions, action units, rotation, surface."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from asccl_jax.data.schema import EMOTIONS
from data_prep.synthetic.action_units import ACTION_UNITS, EMOTION_UNITS
from data_prep.synthetic.head import build_head
from DECA_torch_bridge.fitting.clip_fit import ClipFit
from DECA_torch_bridge.fitting.priors import NEUTRAL_UNITS
from DECA_torch_bridge.fitting.rotations import head_rotations
from DECA_torch_bridge.fitting.synthetic_truth import TruthClip

__all__ = ["NO_EVIDENCE", "SyntheticScores", "classify", "score_synthetic"]

NO_EVIDENCE = (
    "lip_stretch",
    "pucker",
    "upper_lip_raise",
    "lower_lip_down",
    "lower_lip_tuck",
    "lip_press",
    "cheek_raise",
    "cheek_puff",
    "blink",
)
"""Units that say little about an emotion: speech moves them too, or no landmark shows them."""

_LITTLE = 0.15
_LEAST_INTENSITY = 0.3


@dataclasses.dataclass(frozen=True)
class SyntheticScores:
    """What is measured over all clips.

    Attributes:
      jaw_correlation: Of each clip.
      jaw_slope: Fitted jaw angle over true.
      jaw_rms_rad: Root mean square error of the jaw's angle.
      emotion_accuracy: Share of frames whose nearest emotion is the true one.
      worst_class: The least such share over the emotions.
      intensity_ratio: Fitted over true strength of the emotions.
      unit_rms: Root mean square error of each action unit.
      false_unit: Greatest mean of an emotion's unit in a neutral clip.
      surface_mm: Root mean square distance of the face's surface along each axis, worst speaker.
      rotation_deg: Root mean square error of the rotation about a clip's mean rotation.
      reprojection_px: Median distance of fitted from measured landmarks 17..67.
    """

    jaw_correlation: tuple[float, ...]
    jaw_slope: float
    jaw_rms_rad: float
    emotion_accuracy: float
    worst_class: float
    intensity_ratio: float
    unit_rms: Mapping[str, float]
    false_unit: float
    surface_mm: tuple[float, float, float]
    rotation_deg: float
    reprojection_px: float


def score_synthetic(pairs: Sequence[tuple[TruthClip, ClipFit]]) -> SyntheticScores:
    """Returns the scores of fitted clips; neutral ones must be among them."""
    jaw_true = np.concatenate([truth.jaw for truth, _ in pairs])
    jaw = np.concatenate([fit.pose[:, 3] for _, fit in pairs])
    error = np.concatenate([fit.expression - truth.expression for truth, fit in pairs])
    accuracy = _accuracies(pairs)
    strength = [(_strength(fit.expression, truth.emotion), truth.intensity) for truth, fit in pairs]
    felt = [(found.sum(), true.sum()) for (found, true), (truth, _) in zip(strength, pairs, strict=True) if true.any()]
    at_rest = [ACTION_UNITS.index(name) for name in NEUTRAL_UNITS]
    false = [np.abs(fit.expression[:, at_rest].mean(0)).max() for truth, fit in pairs if truth.emotion == "neutral"]
    surface = np.array([_surface_error(truth, fit) for truth, fit in pairs])
    turned = np.concatenate([_rotation_errors(truth, fit) for truth, fit in pairs])
    distance = np.concatenate(
        [np.linalg.norm(fit.landmarks - truth.landmarks, axis=-1)[:, 17:] for truth, fit in pairs]
    )
    return SyntheticScores(
        jaw_correlation=tuple(correlation(fit.pose[:, 3], truth.jaw) for truth, fit in pairs),
        jaw_slope=float(np.cov(jaw, jaw_true)[0, 1] / jaw_true.var(ddof=1)),
        jaw_rms_rad=float(np.sqrt(np.mean((jaw - jaw_true) ** 2))),
        emotion_accuracy=float(np.mean([share for _, share in accuracy])),
        worst_class=min(
            float(np.mean([share for name, share in accuracy if name == emotion]))
            for emotion in {name for name, _ in accuracy}
        ),
        intensity_ratio=float(np.sum(felt, axis=0)[0] / np.sum(felt, axis=0)[1]),
        unit_rms=dict(zip(ACTION_UNITS, np.sqrt(np.square(error).mean(0)).tolist(), strict=False)),
        false_unit=float(max(false)),
        surface_mm=tuple(surface.max(0).tolist()),
        rotation_deg=float(np.sqrt(np.mean(turned**2))),
        reprojection_px=float(np.median(distance)),
    )


def correlation(a: Float[np.ndarray, " t"], b: Float[np.ndarray, " t"]) -> float:
    """Returns Pearson's correlation, 0 where one of the two does not vary."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 1e-12 else 0.0


def _evidence() -> tuple[Float[np.ndarray, "7 e"], Float[np.ndarray, " e"]]:
    """The emotions at intensity 1, and how much each unit counts."""
    symmetric = [name for name in ACTION_UNITS if not name.endswith("_left")]
    emotions = np.array([[EMOTION_UNITS[emotion].get(name, 0.0) for name in symmetric] for emotion in EMOTIONS])
    return emotions, np.array([_LITTLE if name in NO_EVIDENCE else 1.0 for name in symmetric])


def classify(expression: Float[np.ndarray, "t 50"]) -> list[str]:
    """Returns the emotion of each frame that is nearest at its best intensity."""
    emotions, weights = _evidence()
    units, rays = expression[:, : len(weights)] * weights, emotions * weights
    best = np.maximum(units @ rays.T / np.maximum(np.square(rays).sum(1), 1e-9), _LEAST_INTENSITY)
    distance = np.linalg.norm(units[:, None] - best[..., None] * rays, axis=-1)
    return [EMOTIONS[index] for index in distance.argmin(1)]


def _accuracies(pairs: Sequence[tuple[TruthClip, ClipFit]]) -> list[tuple[str, float]]:
    return [
        (truth.emotion, float(np.mean([name == truth.emotion for name in classify(fit.expression)])))
        for truth, fit in pairs
    ]


def _strength(expression: Float[np.ndarray, "t 50"], emotion: str) -> Float[np.ndarray, " t"]:
    """Strength of an emotion in each frame: the projection on its units."""
    emotions, weights = _evidence()
    ray = emotions[EMOTIONS.index(emotion)] * weights
    return expression[:, : len(weights)] * weights @ ray / max(np.square(ray).sum(), 1e-9)


def _surface_error(truth: TruthClip, fit: ClipFit) -> Float[np.ndarray, "3"]:
    """Root mean square distance along x, y, z in mm of the fitted face at rest, at the picture's scale and place."""
    head = build_head()
    vertices = np.unique(head.f[head.face_faces])
    basis = head.shapedirs[vertices]
    true = head.v_template[vertices] + basis[:, :, : len(truth.identity)] @ truth.identity
    found = head.v_template[vertices] + basis[:, :, : len(fit.shape)] @ fit.shape.astype(np.float32)
    found = found * np.median(fit.camera[:, 0]) / truth.scale
    difference = (found - found.mean(0)) - (true - true.mean(0))
    return 1000 * np.sqrt(np.square(difference).mean(0))


def _rotation_errors(truth: TruthClip, fit: ClipFit) -> Float[np.ndarray, " t"]:
    """Degrees between fitted and true rotation, the clip's mean difference taken away."""
    fitted, _ = head_rotations(fit.pose[:, :3])
    true, _ = head_rotations(truth.turn)
    between = fitted @ true.transpose(0, 2, 1)
    u, _, v = np.linalg.svd(between.mean(0))
    relative = between @ (u @ v).T
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
