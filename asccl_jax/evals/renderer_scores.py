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
    "DrivenScorer",
    "Measure",
    "OwnScore",
    "OwnScorer",
    "difference",
    "summary",
]

Image = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]

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


class OwnScorer:
    """Scores a clip drawn from its own conditioning, frame by frame: memory does not grow with its pictures."""

    def __init__(self) -> None:
        self._near = _Nearness()
        self._before: tuple[Image, Image, Mask] | None = None
        self._changes, self._changed = 0.0, 0
        self._background = 0

    def add(self, output: Image, truth: Image, mask: Mask, mouth: Float[np.ndarray, "2"]) -> None:
        """Adds the next frame.

        Args:
          output: As it was generated.
          truth: The frame itself, background and all.
          mask: Where the face is.
          mouth: Middle of the mouth (x, y), pixels.
        """
        self._near.add(output, truth, mask, mouth)
        self._background = max(self._background, int(np.where(mask[..., None], 0, output).max()))
        if self._before is not None:
            shared = mask & self._before[2]
            steps = [now.astype(np.int64) - was for now, was in zip((output, truth), self._before, strict=False)]
            changes = np.abs(steps[0] - steps[1])[shared]
            self._changes, self._changed = self._changes + float(changes.sum()), self._changed + changes.size
        self._before = output, truth, mask

    def score(self, **names: str) -> OwnScore:
        """Returns the figures of the frames so far; the names are the score's `clip`, `speaker` and `emotion`."""
        psnrs = self._near.psnr
        return OwnScore(
            **names,
            psnr=_mean(psnrs),
            ssim=_mean(self._near.ssim),
            mouth=_mean(self._near.mouth),
            first_psnr=psnrs[0],
            later_psnr=_mean(psnrs[_SETTLED:] or psnrs),
            flicker=self._changes / self._changed if self._changed else 0.0,
            background=self._background,
        )


class DrivenScorer:
    """Scores a clip drawn with another expression, frame by frame."""

    def __init__(self) -> None:
        self._near = _Nearness()
        self._apart: list[tuple[float, float]] = []

    def add(
        self,
        output: Image,
        truth: Image,
        mask: Mask,
        mouth: Float[np.ndarray, "points 2"],
        found: Float[np.ndarray, "points 2"],
        found_in_truth: Float[np.ndarray, "points 2"],
    ) -> None:
        """Adds the next frame.

        Args:
          output: As it was generated.
          truth: What it should be, background and all.
          mask: Where both have the face.
          mouth: Exact landmarks of the true mouth, pixels.
          found: Landmarks that the probe finds in the output.
          found_in_truth: Landmarks that it finds in the truth, behind the same mask.
        """
        self._near.add(output, truth, mask, mouth.mean(axis=0))
        pixels = ALIGNED_SIDE / len(output)
        self._apart.append((pixels * _distance(found, found_in_truth), pixels * _distance(found, mouth)))

    def score(self, **names: str) -> DrivenScore:
        """Returns the figures so far; the names are the score's `source`, `clip`, `speaker` and `emotion`."""
        landmarks, exact = zip(*self._apart, strict=True)
        near = self._near
        return DrivenScore(
            **names,
            psnr=_mean(near.psnr),
            ssim=_mean(near.ssim),
            mouth=_mean(near.mouth),
            landmarks=_mean(landmarks),
            exact_landmarks=_mean(exact),
        )


class _Nearness:
    """How near frames are to the truth, one after the other, within the mask and around the mouth."""

    def __init__(self) -> None:
        self.psnr: list[float] = []
        self.ssim: list[float] = []
        self.mouth: list[float] = []

    def add(self, output: Image, truth: Image, mask: Mask, mouth: Float[np.ndarray, "2"]) -> None:
        self.psnr.append(psnr(output, truth, mask))
        # Windows at a mask's border reach beyond it: there both pictures are black.
        shown = [np.where(mask[..., None], image, np.uint8(0)) for image in (output, truth)]
        self.ssim.append(ssim(shown[0], shown[1], mask))
        height, width = mask.shape
        self.mouth.append(
            mean_difference(output, truth, region_around(mouth, _MOUTH_SIDE * height, (height, width), mask))
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


def _distance(first: Float[np.ndarray, "points 2"], second: Float[np.ndarray, "points 2"]) -> float:
    return float(np.linalg.norm(first.astype(np.float64) - second, axis=-1).mean())
