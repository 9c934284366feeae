"""Scores of a fit on real clips, where no truth is known: what the landmarks themselves show, and what stays still."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.data.schema import EMOTIONS
from data_prep.head_fit.calibrate import LandmarkClip
from data_prep.head_fit.clip_fit import ClipFit, SpeakerShape
from data_prep.head_fit.gauss_newton import GROUPS
from data_prep.head_fit.head_assets import HeadAssets
from data_prep.head_fit.priors import NEUTRAL_UNITS
from data_prep.head_fit.projection import CONTOUR, IDENTITY_SIZE, contour_normals, head_rotations
from data_prep.synthetic.action_units import ACTION_UNITS, EMOTION_UNITS
from data_prep.synthetic.head import build_head
from tests.acceptance.synthetic_truth import TruthClip

__all__ = [
    "EXPECTED_UNITS",
    "NO_EVIDENCE",
    "FittedClip",
    "RealScores",
    "SurfaceChecks",
    "SyntheticScores",
    "check_surface",
    "classify",
    "lip_gap",
    "score_real",
    "score_synthetic",
]

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


EXPECTED_UNITS: Mapping[str, str] = {
    "happy": "smile",
    "angry": "brow_lower",
    "sad": "brow_inner_up",
    "disgusted": "upper_lip_raise",
}
"""The unit that an emotion must show on a real face."""

_WIDE_GAP_PX = 14.0
_LARGEST_LAG = 5


@dataclasses.dataclass(frozen=True, eq=False)
class FittedClip:
    """A clip, its speaker's shape and what was found in it."""

    clip: LandmarkClip
    speaker: SpeakerShape
    fit: ClipFit


@dataclasses.dataclass(frozen=True)
class RealScores:
    """What is measured over all clips; each mapping is by clip, except `shape_norm`, by speaker.

    Attributes:
      reprojection_px: All landmarks' distances: median and 95th percentile over all clips.
      group_px: The same by part of the face.
      clip_px: Median of each clip.
      shape_norm: Norm of the identity coefficients over the root of their number.
      gap_correlation: Fitted with measured lip gap.
      jaw_correlation: Jaw angle with measured lip gap.
      wide: Whether the lip gap's 95th percentile is above 14 px.
      rotation_jitter_deg: Second difference of the rotation over the root of 6.
      unit_shift: Mean of the emotion's expected unit less its mean in the speaker's neutral clips.
      lag_frames: By which the fitted lip gap trails the measured one.
    """

    reprojection_px: tuple[float, float]
    group_px: Mapping[str, tuple[float, float]]
    clip_px: Mapping[str, float]
    shape_norm: Mapping[str, float]
    gap_correlation: Mapping[str, float]
    jaw_correlation: Mapping[str, float]
    wide: Mapping[str, bool]
    rotation_jitter_deg: Mapping[str, float]
    unit_shift: Mapping[str, float]
    lag_frames: Mapping[str, int]


def score_real(fitted: Sequence[FittedClip]) -> RealScores:
    """Returns the scores of fitted clips."""
    distances = {item.clip.name: _distances(item) for item in fitted}
    everything = np.concatenate(list(distances.values()))
    gaps = {item.clip.name: (lip_gap(item.fit.landmarks), lip_gap(item.clip.landmarks)) for item in fitted}
    return RealScores(
        reprojection_px=_spread(everything),
        group_px={name: _spread(everything[:, list(rows)]) for name, rows in GROUPS.items()},
        clip_px={name: float(np.nanmedian(distance)) for name, distance in distances.items()},
        shape_norm={
            item.clip.speaker: float(np.linalg.norm(item.fit.shape) / np.sqrt(np.count_nonzero(item.fit.shape) or 1))
            for item in fitted
        },
        gap_correlation={name: _correlation(*pair) for name, pair in gaps.items()},
        jaw_correlation={item.clip.name: _correlation(item.fit.pose[:, 3], gaps[item.clip.name][1]) for item in fitted},
        wide={name: bool(np.nanpercentile(gap, 95) > _WIDE_GAP_PX) for name, (_, gap) in gaps.items()},
        rotation_jitter_deg={item.clip.name: rotation_jitter(item.fit.pose[:, :3]) for item in fitted},
        unit_shift=_unit_shifts(fitted),
        lag_frames={name: _lag(*pair) for name, pair in gaps.items()},
    )


def lip_gap(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, " t"]:
    """Returns the mean distance of the three pairs of inner lip points that face each other."""
    return np.linalg.norm(landmarks[:, 61:64] - landmarks[:, 67:64:-1], axis=-1).mean(1)


def rotation_jitter(axis_angles: Float[np.ndarray, "t 3"]) -> float:
    """Returns the root mean square of the rotation's second difference over the root of 6, degrees.

    For a rotation with white errors that is their standard deviation along an axis.
    """
    rotations, _ = head_rotations(axis_angles)
    steps = rotations[1:] @ rotations[:-1].transpose(0, 2, 1)
    turn = 0.5 * np.stack([steps[:, 2, 1] - steps[:, 1, 2], steps[:, 0, 2] - steps[:, 2, 0],
                           steps[:, 1, 0] - steps[:, 0, 1]], -1)  # fmt: skip
    return float(np.degrees(np.sqrt(np.square(np.diff(turn, axis=0)).mean() / 6)))


def _distances(item: FittedClip) -> Float[np.ndarray, "t 68"]:
    """Distance of fitted from measured landmarks; along the normal only for the outline, as it was fitted."""
    difference = item.fit.landmarks - item.clip.landmarks
    distance = np.linalg.norm(difference, axis=-1)
    normals = contour_normals(item.clip.landmarks)
    distance[:, :CONTOUR] = np.abs((difference[:, :CONTOUR] * normals).sum(-1))
    return distance


def _spread(distances: np.ndarray) -> tuple[float, float]:
    return float(np.nanmedian(distances)), float(np.nanpercentile(distances, 95))


def _correlation(a: Float[np.ndarray, " t"], b: Float[np.ndarray, " t"]) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return correlation(a[known], b[known])


def _lag(fitted: Float[np.ndarray, " t"], measured: Float[np.ndarray, " t"]) -> int:
    """Frames by which the fitted curve trails the measured one, by cross-correlation."""
    reach = min(_LARGEST_LAG, len(fitted) // 4)
    lags = range(-reach, reach + 1)
    size = len(fitted) - reach
    scores = []
    for lag in lags:
        start, other = max(lag, 0), max(-lag, 0)
        length = min(size, len(fitted) - max(start, other))
        scores.append(_correlation(fitted[start : start + length], measured[other : other + length]))
    return lags[int(np.argmax(scores))]


def _unit_shifts(fitted: Sequence[FittedClip]) -> dict[str, float]:
    shifts = {}
    for item in fitted:
        unit = EXPECTED_UNITS.get(item.clip.emotion)
        if unit is None or not item.fit.units_valid:
            continue
        column = ACTION_UNITS.index(unit)
        own = [
            other.fit.expression[:, column]
            for other in fitted
            if other.clip.speaker == item.clip.speaker and other.clip.source and other.clip.emotion == "neutral"
        ]
        shifts[item.clip.name] = float(item.fit.expression[:, column].mean() - np.concatenate(own).mean())
    return shifts


_EYES = (3, 4)
_DRAWS = 8


@dataclasses.dataclass(frozen=True)
class SurfaceChecks:
    """What is measured, all in mm except the last.

    Attributes:
      midline_jump_mm: Greatest jump of an identity component's displacement across the midline: difference between
        mirrored vertices next to it, less what their distance explains.
      depth_shift_mm: Greatest difference in depth between eyeballs and lids that a random identity makes.
      eye_before_lid_mm: How far an eyeball of a random identity reaches in front of the lids' edges around it.
      mouth_triangles_left: 0 if the head lists its mouth's triangles, which images of it leave out.
    """

    midline_jump_mm: float
    depth_shift_mm: float
    eye_before_lid_mm: float
    mouth_triangles_left: float


def check_surface(assets: HeadAssets) -> SurfaceChecks:
    """Returns the checks of a head with its identity basis."""
    rng = np.random.default_rng(0)
    identities = np.clip(rng.standard_normal((_DRAWS, IDENTITY_SIZE)), -2, 2)
    shifts, before = [], []
    for joint in _EYES:
        ball = np.flatnonzero(assets.skinning_weights[:, joint] > 0.5)
        lids = _lid_vertices(assets, joint)
        for identity in identities:
            moved = assets.shapedirs[:, :, :IDENTITY_SIZE] @ identity.astype(np.float32)
            shifts.append(abs(moved[ball, 2].mean() - moved[lids, 2].mean()))
            vertices = assets.v_template + moved
            before.append(_overlap(vertices[ball], vertices[lids]))
    expected = assets.source == "builtin"
    return SurfaceChecks(
        midline_jump_mm=1000 * _midline_jump(assets),
        depth_shift_mm=1000 * float(max(shifts)),
        eye_before_lid_mm=1000 * float(max(before)),
        mouth_triangles_left=float(expected and not len(assets.mouth_faces)),
    )


def _lid_vertices(assets: HeadAssets, joint: int) -> Int[np.ndarray, " v"]:
    """Corners of the triangles that hold an eye's six landmarks: the lids' edges."""
    eye = assets.joint_regressor[joint] @ assets.v_template
    rows = slice(19, 25) if eye[0] < 0 else slice(25, 31)
    return np.unique(assets.faces[assets.static_landmark_faces[rows]])


def _midline_jump(assets: HeadAssets) -> float:
    """Greatest sideways displacement of a midline vertex: a symmetric smooth field has none there."""
    skin = assets.skinning_weights[:, list(_EYES)].max(1) < 0.5
    middle = np.flatnonzero(skin & (np.abs(assets.v_template[:, 0]) < 1e-5))
    return float(2 * np.abs(assets.shapedirs[middle, 0, :IDENTITY_SIZE]).max())


def _overlap(ball: Float[np.ndarray, "b 3"], lids: Float[np.ndarray, "v 3"]) -> float:
    """How deep the deepest lid vertex lies inside the eyeball, a sphere through its vertices; negative if none does."""
    system = np.column_stack([2 * ball, np.ones(len(ball))]).astype(np.float64)
    solution, *_ = np.linalg.lstsq(system, np.square(ball).sum(1).astype(np.float64), rcond=None)
    centre = solution[:3]
    radius = np.sqrt(solution[3] + centre @ centre)
    return float(radius - np.linalg.norm(lids - centre, axis=1).min())
