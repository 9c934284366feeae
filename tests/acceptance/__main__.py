"""Does the fit of heads to landmarks hold its bars? `python -m tests.acceptance [--clips DIR] [--variants]`.

Prints a table for synthetic heads, whose truth is known, and one for a folder of real clips' landmarks. With
`--variants` fits that are wrong on purpose run too, and the table says which bars refuse them. The bars are those of
the study that this encoder follows; no single one is enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from asccl_jax.errors import InputError
from data_prep.head_fit.calibrate import LandmarkClip, read_clips
from data_prep.head_fit.head_assets import HeadAssets, builtin_assets
from data_prep.head_fit.landmark_tables import TABLE_NAMES, LandmarkTable
from tests.acceptance.measures import (
    FittedClip,
    RealScores,
    SyntheticScores,
    check_surface,
    score_real,
    score_synthetic,
)
from tests.acceptance.synthetic_truth import TruthClip, act_speaker
from tests.acceptance.wrong_variants import VARIANTS, procedure

__all__ = ["Bar", "accept_real", "accept_surface", "accept_synthetic", "main", "real_bars", "synthetic_bars"]

LEAST_FPS = 20.0
_SPEAKERS = (101, 102, 103, 104)


@dataclasses.dataclass(frozen=True)
class Bar:
    """One check.

    Attributes:
      name: What is checked.
      value: What was reached.
      low: Least value that passes.
      high: Greatest value that passes.
    """

    name: str
    value: float
    low: float = -np.inf
    high: float = np.inf

    @property
    def holds(self) -> bool:
        """Whether the value passes; NaN does not."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        if np.isinf(self.low):
            limit = f"<= {self.high:g}"
        elif np.isinf(self.high):
            limit = f">= {self.low:g}"
        else:
            limit = f"{self.low:g} .. {self.high:g}"
        return f"  {'ok  ' if self.holds else 'FAIL'}  {self.name:<58}{self.value:>9.3f}   {limit}"


def synthetic_bars(scores: SyntheticScores) -> list[Bar]:
    """Returns the checks against synthetic truth."""
    jaw = np.array(scores.jaw_correlation)
    bars = [
        Bar("jaw r, median over clips", float(np.median(jaw)), low=0.98),
        Bar("jaw r, least", float(jaw.min()), low=0.95),
        Bar("jaw slope", scores.jaw_slope, low=0.90, high=1.10),
        Bar("jaw rms, rad", scores.jaw_rms_rad, high=0.020),
        Bar("emotion per frame", scores.emotion_accuracy, low=0.96),
        Bar("emotion, worst class", scores.worst_class, low=0.88),
        Bar("emotion intensity over truth", scores.intensity_ratio, low=0.80, high=1.03),
        Bar("false emotion unit in neutral speech", scores.false_unit, high=0.25),
        Bar("surface error, worst axis, mm", max(scores.surface_mm), high=3.0),
    ]
    for names, limit in (
        (("brow_inner_up", "brow_outer_up", "brow_lower", "smile", "corner_down"), 0.14),
        (("pucker", "upper_lip_raise", "lip_stretch", "nose_wrinkle", "lid_wide", "blink"), 0.22),
    ):
        bars += [Bar(f"unit rms, {name}", scores.unit_rms[name], high=limit) for name in names]
    return bars


_SHIFT_BARS = {"happy": 0.35, "angry": 0.14, "sad": 0.30}
_SHOWS_EMOTION = ("src", "ours")  # the bars were set on these; other methods' outputs may fail to show their emotion


def real_bars(scores: RealScores, emotions: dict[str, str]) -> list[Bar]:
    """Returns the checks on real clips.

    Args:
      scores: What was measured.
      emotions: Emotion of each clip that is known to show it.
    """
    wide = [scores.jaw_correlation[name] for name, is_wide in scores.wide.items() if is_wide]
    median, tail = scores.reprojection_px
    bars = [
        Bar("reprojection median, px", median, high=1.0),
        Bar("reprojection 95th percentile, px", tail, high=2.8),
        Bar("reprojection median, worst clip, px", max(scores.clip_px.values()), high=1.6),
        Bar("norm of shape / root of its size, worst speaker", max(scores.shape_norm.values()), high=1.5),
        Bar("r(lip gap fitted, measured), median", _median(scores.gap_correlation), low=0.98),
        Bar("r(jaw, lip gap), median", _median(scores.jaw_correlation), low=0.80),
        Bar("r(jaw, lip gap), least where the gap is wide", min(wide, default=1.0), low=0.60),
        Bar("rotation jitter, median, deg", _median(scores.rotation_jitter_deg), high=0.080),
        Bar("lag, frames, greatest", max(abs(lag) for lag in scores.lag_frames.values()), high=0),
    ]
    for name, shift in scores.unit_shift.items():
        if (low := _SHIFT_BARS.get(emotions.get(name, ""))) is not None:
            bars.append(Bar(f"unit of the emotion, {name}", shift, low=low))
    return bars


def _median(values: Mapping[str, float]) -> float:
    return float(np.median(list(values.values())))


def accept_synthetic(
    speakers: Sequence[Sequence[TruthClip]], assets: HeadAssets, *, variant: str = "right"
) -> tuple[list[Bar], SyntheticScores]:
    """Returns the checks of a procedure on synthetic clips, each speaker's neutral one among them."""
    how = procedure(variant, assets, "synthetic")
    start, frames, pairs = time.process_time(), 0, []
    for clips in speakers:
        shape = how.speaker([clip.landmarks for clip in clips if clip.emotion == "neutral"])
        for clip in clips:
            pairs.append((clip, how.clip(clip.landmarks, shape, neutral=clip.emotion == "neutral")))
            frames += len(clip.landmarks)
    speed = frames / (time.process_time() - start)
    scores = score_synthetic(pairs)
    return [*synthetic_bars(scores), Bar("frames/s on one core", speed, low=LEAST_FPS)], scores


def accept_real(
    clips: Sequence[LandmarkClip], assets: HeadAssets, detector: str | LandmarkTable, *, variant: str = "right"
) -> tuple[list[Bar], RealScores]:
    """Returns the checks of a procedure on real clips; speakers without a neutral source clip are left out."""
    how = procedure(variant, assets, detector)
    start, frames, fitted = time.process_time(), 0, []
    for speaker in sorted({clip.speaker for clip in clips}):
        own = [clip for clip in clips if clip.speaker == speaker]
        neutral = [clip.landmarks for clip in own if clip.source and clip.emotion == "neutral"]
        if not neutral:
            continue
        shape = how.speaker(neutral)
        for clip in own:
            at_rest = clip.source and clip.emotion == "neutral"
            fitted.append(FittedClip(clip, shape, how.clip(clip.landmarks, shape, neutral=at_rest)))
            frames += len(clip.landmarks)
    speed = frames / (time.process_time() - start)
    if not fitted:
        raise InputError("no speaker has a neutral source clip: action units cannot be judged; add one per speaker")
    scores = score_real(fitted)
    shown = {item.clip.name: item.clip.emotion for item in fitted if item.clip.maker in _SHOWS_EMOTION}
    bars = real_bars(scores, shown)
    return [*bars, Bar("frames/s on one core", speed, low=LEAST_FPS)], scores


def accept_surface(assets: HeadAssets) -> list[Bar]:
    """Returns the checks of the head's surface, which landmarks cannot see."""
    checks = check_surface(assets)
    return [
        Bar("midline jump, mm per unit of identity", checks.midline_jump_mm, high=0.3),
        Bar("depth shift of identity at the eyes, mm", checks.depth_shift_mm, high=8.0),
        Bar("eyeball in front of a lid, mm", checks.eye_before_lid_mm, high=0.0),
        Bar("triangles inside the mouth left in", checks.mouth_triangles_left, high=0),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables; returns 0 if all bars of the right fit hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, action="append", default=[], help="folder of landmarks; repeatable")
    parser.add_argument("--detector", choices=TABLE_NAMES, default="mediapipe", help="who found them")
    parser.add_argument("--speakers", type=int, nargs="*", default=list(_SPEAKERS), help="seeds of synthetic speakers")
    parser.add_argument("--variants", action="store_true", help="run the wrong fits too")
    options = parser.parse_args(arguments)
    try:
        holds = _report(
            options.clips, options.detector, options.speakers, list(VARIANTS) if options.variants else ["right"]
        )
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0 if holds else 1


def _report(folders: list[Path], detector: str, seeds: list[int], variants: list[str]) -> bool:
    assets = builtin_assets()
    holds = _table("surface", ["right"], lambda _: accept_surface(assets))
    if seeds:
        speakers = [act_speaker(seed) for seed in seeds]
        holds &= _table("synthetic truth", variants, lambda name: accept_synthetic(speakers, assets, variant=name)[0])
    for folder in folders:
        clips = read_clips(folder)
        run = lambda name, clips=clips: accept_real(clips, assets, detector, variant=name)[0]  # noqa: E731
        holds &= _table(f"{len(clips)} clips of {folder.name}", variants, run)
    return holds


def _table(title: str, variants: list[str], run: Callable[[str], list[Bar]]) -> bool:
    """Writes the right fit's checks in full and, of each wrong fit, those that refuse it."""
    sys.stdout.write(f"{title}\n")
    right = run("right")
    sys.stdout.write("\n".join(map(str, right)) + "\n")
    for variant in variants[1:]:
        refused = [f"{bar.name} {bar.value:.2f}" for bar in run(variant) if not bar.holds]
        sys.stdout.write(f"  {variant}: {'; '.join(refused) or 'PASSES ALL'}\n")
        sys.stdout.flush()
    return all(bar.holds for bar in right)


if __name__ == "__main__":
    sys.exit(main())
