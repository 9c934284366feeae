"""How well a renderer gives frames back, and how well it shows an edited face, against the exact truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from asccl_jax.evals.bootstrap import Interval, Units, choose_units, mean
from asccl_jax.evals.image_scores import mean_difference, psnr, region_around, ssim
from asccl_jax.evals.renderer_truth import ALIGNED_SIDE

__all__ = [
    "DRIVEN_MEASURES",
    "OWN_MEASURES",
    "DrivenScore",
    "Measure",
    "OwnScore",
    "difference",
    "score_driven_clip",
    "score_own_clip",
    "summary",
]

Frames = UInt8[np.ndarray, "t h w 3"]
Masks = Bool[np.ndarray, "t h w"]

_MOUTH_SIDE = 72 / ALIGNED_SIDE
"""Side of the square around the mouth, over that of the picture: what the mouth's discriminator sees."""

_SETTLED = 3
"""Frames after which a clip has a full history of generated frames."""


@dataclasses.dataclass(frozen=True)
class OwnScore:
    """A held-out clip drawn from its own conditioning; all but `background` within the mask.

    Attributes:
      clip: Its id.
      speaker: Who speaks.
      emotion: Of the clip.
      psnr: Mean over frames, dB.
      ssim: Likewise.
      mouth: Mean absolute difference around the mouth, levels of 0..255.
      first_psnr: Of the first frame.
      later_psnr: Mean of the frames that have a full history.
      flicker: Mean absolute difference of the change from frame to frame, levels.
      background: Brightest value outside the mask; 0 if all is black.
    """

    clip: str
    speaker: str
    emotion: str
    psnr: float
    ssim: float
    mouth: float
    first_psnr: float
    later_psnr: float
    flicker: float
    background: int


@dataclasses.dataclass(frozen=True)
class DrivenScore:
    """A held-out neutral clip drawn with the expression of its twin, compared with the twin's frames.

    Attributes:
      source: Id of the neutral clip.
      clip: Id of the twin.
      speaker: Who speaks.
      emotion: Of the twin.
      psnr: Mean over frames, dB, where both have the face.
      ssim: Likewise.
      mouth: Mean absolute difference around the true mouth, levels of 0..255.
      landmarks: Mean distance of the mouth's landmarks that the probe finds in output and truth, in pixels of the
        256-pixel aligned picture.
      exact_landmarks: Mean distance of those it finds in the output from the exact ones; the probe's own error is in
        it.
    """

    source: str
    clip: str
    speaker: str
    emotion: str
    psnr: float
    ssim: float
    mouth: float
    landmarks: float
    exact_landmarks: float


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure of a table: field, heading, direction (None where neither is better), digits after the point."""

    name: str
    title: str
    higher_is_better: bool | None
    digits: int


OWN_MEASURES = (
    Measure("psnr", "PSNR, dB", True, 2),
    Measure("ssim", "SSIM", True, 4),
    Measure("mouth", "mouth error, levels", False, 2),
    Measure("first_psnr", "first frame, dB", True, 2),
    Measure("later_psnr", "later frames, dB", True, 2),
    Measure("flicker", "flicker, levels", False, 2),
    Measure("background", "background", None, 0),
)

DRIVEN_MEASURES = (
    Measure("mouth", "mouth error, levels", False, 2),
    Measure("landmarks", "landmark distance, px", False, 3),
    Measure("exact_landmarks", "to exact landmarks, px", False, 3),
    Measure("psnr", "PSNR, dB", True, 2),
    Measure("ssim", "SSIM", True, 4),
)


def score_own_clip(
    output: Frames, truth: Frames, masks: Masks, mouths: Float[np.ndarray, "t 2"], **names: str
) -> OwnScore:
    """Returns the figures of a clip drawn from its own conditioning.

    Args:
      output: Generated frames.
      truth: The frames themselves, background and all.
      masks: Where the face is.
      mouths: Middle of each mouth (x, y), pixels.
      **names: The score's `clip`, `speaker` and `emotion`.
    """
    each = [psnr(*frame) for frame in zip(output, truth, masks, strict=True)]
    settled = each[_SETTLED:] or each
    return OwnScore(
        **names,
        psnr=_mean(each),
        ssim=_mean([ssim(*frame) for frame in _blackened(output, truth, masks)]),
        mouth=_around_mouths(output, truth, masks, mouths),
        first_psnr=each[0],
        later_psnr=_mean(settled),
        flicker=_flicker(output, truth, masks),
        background=int(np.where(masks[..., None], 0, output).max()),
    )


def score_driven_clip(
    output: Frames,
    truth: Frames,
    masks: Masks,
    mouths: Float[np.ndarray, "t points 2"],
    found: Float[np.ndarray, "t points 2"],
    found_in_truth: Float[np.ndarray, "t points 2"],
    **names: str,
) -> DrivenScore:
    """Returns the figures of a clip drawn with another expression.

    Args:
      output: Generated frames.
      truth: What they should be, background and all.
      masks: Where both have the face.
      mouths: Exact landmarks of the true mouth, pixels.
      found: Landmarks that the probe finds in the output.
      found_in_truth: Landmarks that it finds in the truth, behind the same mask.
      **names: The score's `source`, `clip`, `speaker` and `emotion`.
    """
    pixels = ALIGNED_SIDE / output.shape[1]
    return DrivenScore(
        **names,
        psnr=_mean([psnr(*frame) for frame in zip(output, truth, masks, strict=True)]),
        ssim=_mean([ssim(*frame) for frame in _blackened(output, truth, masks)]),
        mouth=_around_mouths(output, truth, masks, mouths.mean(axis=1)),
        landmarks=pixels * _distance(found, found_in_truth),
        exact_landmarks=pixels * _distance(found, mouths),
    )


def summary(scores: Sequence[Any], measure: str) -> Interval:
    """Returns the mean of a measure over clips with its bootstrap interval; a clip driven by a twin counts as one."""
    return mean(_values(scores, measure), _units(scores))


def difference(scores: Sequence[Any], others: Sequence[Any], measure: str) -> Interval:
    """Returns the mean of a measure minus that of others on the same clips, with its interval."""
    return mean(_values(scores, measure) - _values(others, measure), _units(scores))


def _values(scores: Sequence[Any], measure: str) -> Float[np.ndarray, " n"]:
    return np.array([getattr(score, measure) for score in scores], np.float64)


def _units(scores: Sequence[Any]) -> Units:
    """Speakers, or where there are few of them clips: of driven ones the sources, which share their speech, first."""
    levels = [("speaker", [score.speaker for score in scores])]
    if scores and isinstance(scores[0], DrivenScore):
        levels.append(("source", [score.source for score in scores]))
    return choose_units(*levels, ("clip", [score.clip for score in scores]))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _blackened(output: Frames, truth: Frames, masks: Masks) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Windows at a mask's border reach beyond it: there both pictures are black."""
    shown = masks[..., None]
    pictures = (np.where(shown, frames, np.uint8(0)) for frames in (output, truth))
    return list(zip(*pictures, masks, strict=True))


def _around_mouths(output: Frames, truth: Frames, masks: Masks, mouths: Float[np.ndarray, "t 2"]) -> float:
    side = _MOUTH_SIDE * output.shape[1]
    shape = (output.shape[1], output.shape[2])
    regions = [region_around(mouth, side, shape, mask) for mouth, mask in zip(mouths, masks, strict=True)]
    return _mean([mean_difference(*frame) for frame in zip(output, truth, regions, strict=True)])


def _flicker(output: Frames, truth: Frames, masks: Masks) -> float:
    if len(output) < 2:
        return 0.0
    shared = masks[1:] & masks[:-1]
    changes = [np.diff(frames.astype(np.float64), axis=0) for frames in (output, truth)]
    return float(np.abs(changes[0] - changes[1])[shared].mean())


def _distance(first: Float[np.ndarray, "t points 2"], second: Float[np.ndarray, "t points 2"]) -> float:
    return float(np.linalg.norm(first.astype(np.float64) - second, axis=-1).mean())
