"""Fits that are wrong on purpose: what an acceptance check is worth shows in which of them it refuses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from data_prep.head_fit.calibrate import MIRROR
from data_prep.head_fit.clip_fit import ClipFit, LandmarkFitter, SpeakerShape
from data_prep.head_fit.head_assets import HeadAssets
from data_prep.head_fit.landmark_tables import LandmarkTable
from data_prep.head_fit.priors import NEUTRAL_UNITS
from data_prep.head_fit.projection import LandmarkHead, build_landmark_head

__all__ = ["VARIANTS", "Procedure", "procedure"]

Clips = Sequence[Float[np.ndarray, "_ 68 2"]]


class Procedure:
    """How an acceptance run turns the clips of a speaker into fits; the right one. Wrong ones change a part of it.

    Args:
      fitter: The fitter.
    """

    def __init__(self, fitter: LandmarkFitter) -> None:
        self.fitter = fitter

    def speaker(self, neutral_clips: Clips) -> SpeakerShape:
        """Returns the shape of a speaker."""
        return self.fitter.fit_speaker(neutral_clips)

    def clip(self, landmarks: Float[np.ndarray, "t 68 2"], speaker: SpeakerShape, *, neutral: bool) -> ClipFit:
        """Returns the fit of a clip."""
        return self.fitter.fit_clip(landmarks, speaker, neutral=neutral)


class _ShapePerClip(Procedure):
    def clip(self, landmarks: Float[np.ndarray, "t 68 2"], speaker: SpeakerShape, *, neutral: bool) -> ClipFit:
        own = dataclasses.replace(self.fitter.fit_speaker([landmarks], neutral=neutral), neutral=True)
        return self.fitter.fit_clip(landmarks, own, neutral=neutral)


class _MeanShape(Procedure):
    def speaker(self, neutral_clips: Clips) -> SpeakerShape:
        return SpeakerShape(np.zeros(100), neutral=True, frames=sum(map(len, neutral_clips)))


class _Swapped(Procedure):
    """Left and right landmarks exchanged."""

    def speaker(self, neutral_clips: Clips) -> SpeakerShape:
        return self.fitter.fit_speaker([clip[:, MIRROR] for clip in neutral_clips])

    def clip(self, landmarks: Float[np.ndarray, "t 68 2"], speaker: SpeakerShape, *, neutral: bool) -> ClipFit:
        found = self.fitter.fit_clip(landmarks[:, MIRROR], speaker, neutral=neutral)
        return dataclasses.replace(found, landmarks=found.landmarks[:, MIRROR])


class _Ahead(Procedure):
    """Results two frames early."""

    def clip(self, landmarks: Float[np.ndarray, "t 68 2"], speaker: SpeakerShape, *, neutral: bool) -> ClipFit:
        found = self.fitter.fit_clip(landmarks, speaker, neutral=neutral)
        later = np.minimum(found.frame_index + 2, len(landmarks) - 1)
        return dataclasses.replace(
            found,
            pose=found.pose[later],
            expression=found.expression[later],
            camera=found.camera[later],
            landmarks=found.landmarks[later],
        )


def _with_priors(**changes: float | tuple[float, ...]) -> Callable[[LandmarkFitter, HeadAssets], None]:
    def change(fitter: LandmarkFitter, assets: HeadAssets) -> None:
        del assets
        priors = dataclasses.replace(fitter.settings.priors, **changes)  # type: ignore[arg-type]
        fitter.settings = dataclasses.replace(fitter.settings, priors=priors)

    return change


def _with_head(
    edit: Callable[[LandmarkHead, HeadAssets], LandmarkHead],
) -> Callable[[LandmarkFitter, HeadAssets], None]:
    def change(fitter: LandmarkFitter, assets: HeadAssets) -> None:
        fitter.head = edit(fitter.head, assets)

    return change


def _no_jaw(head: LandmarkHead, assets: HeadAssets) -> LandmarkHead:
    del assets
    return dataclasses.replace(head, jaw_weights=np.zeros_like(head.jaw_weights))


def _inverted_jaw(head: LandmarkHead, assets: HeadAssets) -> LandmarkHead:
    del assets
    return dataclasses.replace(head, jaw_weights=-head.jaw_weights)


def _frozen_units(head: LandmarkHead, assets: HeadAssets) -> LandmarkHead:
    del assets
    frozen = [head.unit_names.index(name) for name in NEUTRAL_UNITS]
    expression = head.expression.copy()
    expression[..., frozen] = 0
    return dataclasses.replace(head, expression=expression)


def _wrong_block(head: LandmarkHead, assets: HeadAssets) -> LandmarkHead:
    """Identity columns 100.. where expression belongs."""
    columns = np.roll(assets.shapedirs, 200, axis=-1)  # columns 100.. come to lie at 300..
    other = dataclasses.replace(assets, shapedirs=columns)
    table = LandmarkTable.zero("synthetic")
    return dataclasses.replace(head, expression=build_landmark_head(other, table).expression)


def _tighter(fitter: LandmarkFitter, assets: HeadAssets) -> None:
    """Smoothing ten times too strong."""
    priors = fitter.settings.priors
    _with_priors(
        velocity=tuple(0.1 * spread for spread in priors.velocity),
        acceleration=tuple(0.1 * spread for spread in priors.acceleration),
    )(fitter, assets)


def _nothing(fitter: LandmarkFitter, assets: HeadAssets) -> None:
    del fitter, assets


_LOOSE = (1e3, 1e3, 1e3, 1e3, 1e3)

VARIANTS: dict[str, tuple[type[Procedure], Callable[[LandmarkFitter, HeadAssets], None]]] = {
    "right": (Procedure, _nothing),
    "shape per clip": (_ShapePerClip, _nothing),
    "mean shape": (_MeanShape, _nothing),
    "no size anchor": (Procedure, _with_priors(size=math.inf)),
    "no jaw": (Procedure, _with_head(_no_jaw)),
    "inverted jaw": (Procedure, _with_head(_inverted_jaw)),
    "swapped sides": (_Swapped, _nothing),
    "wrong expression block": (Procedure, _with_head(_wrong_block)),
    "frozen units": (Procedure, _with_head(_frozen_units)),
    "over-smoothed": (Procedure, _tighter),
    "no smoothing": (Procedure, _with_priors(velocity=_LOOSE, acceleration=_LOOSE)),
    "two frames ahead": (_Ahead, _nothing),
    "shape prior not scaled": (Procedure, _with_priors(shape_per_frame=0.0)),
}
"""What is done wrong, and how."""


def procedure(variant: str, assets: HeadAssets, detector: str | LandmarkTable) -> Procedure:
    """Returns the procedure of one of `VARIANTS`."""
    kind, change = VARIANTS[variant]
    fitter = LandmarkFitter(assets, detector)
    change(fitter, assets)
    return kind(fitter)
