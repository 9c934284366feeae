"""Scores of a fit on real clips, where no truth is known: what the landmarks themselves show, and what stays still."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from data_prep.synthetic.action_units import ACTION_UNITS
from DECA_torch_bridge.fitting.clip_fit import ClipFit, SpeakerShape
from DECA_torch_bridge.fitting.contour import CONTOUR, contour_normals
from DECA_torch_bridge.fitting.landmark_clips import LandmarkClip
from DECA_torch_bridge.fitting.residuals import GROUPS
from DECA_torch_bridge.fitting.rotations import head_rotations
from DECA_torch_bridge.fitting.synthetic_measures import correlation

__all__ = ["EXPECTED_UNITS", "FittedClip", "RealScores", "lip_gap", "score_real"]

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
