"""The scores of a manipulated clip and of a real one, or why a clip is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.errors import InputError
from asccl_jax.evals.renderer_scores import psnr, ssim
from asccl_jax.models.face_networks import EMOTIONS_OF_CLASSES
from data_prep.evaluate.evaluation_run import EvaluationSettings, Run
from data_prep.evaluate.feature_distances import paired_cosine
from data_prep.evaluate.landmark_sources import PROBE
from data_prep.evaluate.lip_landmarks import (
    best_lag,
    landmark_jitter,
    lip_landmark_distance,
    mouth_correlation,
    mouth_opening,
)
from data_prep.evaluate.lip_sync_scores import PROTOCOLS, lip_sync_scores
from data_prep.evaluate.matching import ClipClock, Matched, alike, nearest_rows
from data_prep.evaluate.score_cache import ScoreCache, digest
from data_prep.evaluate.video_features import VideoFeatures
from data_prep.evaluate.video_metrics import ClipScores, Refusal
from data_prep.media.clips import Clip
from data_prep.media.decode import BrokenMediaError, Sound, read_frames

__all__ = [
    "Beside",
    "Scored",
    "Scores",
    "Seen",
    "against_source",
    "against_truth",
    "beside",
    "by_itself",
    "known",
    "score_fake",
    "score_real",
]

# The scores of one clip: by itself, against its source, against its truth.

MOST_DB = 100.0
"""PSNR of equal frames, which is infinite, in means."""


class Scores:
    """Figures by metric, and why others are lacking."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.lacking: dict[str, str] = {}

    def add(self, values: Mapping[str, float], lacking: Mapping[str, str]) -> None:
        """Adds what was found; a figure that is not finite is lacking."""
        for name, value in values.items():
            if math.isfinite(value):
                self.values[name] = float(value)
            else:
                self.lacking[name] = "no frame has it"
        self.lacking.update(lacking)


def by_itself(features: VideoFeatures, emotion: str, missing: Mapping[str, str]) -> Scores:
    """Returns what a clip scores without any other: how restless it is, which emotion it shows.

    Args:
      features: What was read off it.
      emotion: Emotion asked for, or shown if it is real.
      missing: Networks that are not here.
    """
    scores = Scores()
    too_short = {} if len(features.jitter) else {"picture_jitter": "fewer than three frames"}
    scores.add({} if too_short else {"picture_jitter": float(np.nanmean(features.jitter))}, too_short)
    scores.add(*_landmark_jitter(features))
    name = "emotion_accuracy_efficientface"
    arrays = features.network("efficient-face")
    if arrays is None:
        scores.add({}, {name: _absent("efficient-face", features, missing)})
    else:
        classes = arrays["probabilities"].argmax(axis=1)
        scores.add({name: float(np.mean(classes == EMOTIONS_OF_CLASSES.index(emotion)))}, {})
    return scores


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """Which frames of a source belong beside those of a manipulated clip.

    Attributes:
      shift_s: How much later the sound comes in the clip than in its source, each from its first picture on.
      rows: Frames of the clip that have one of the source at their time.
      source_rows: Those of the source, as many.
    """

    shift_s: float
    rows: Int[np.ndarray, " n"]
    source_rows: Int[np.ndarray, " n"]


def beside(fake: ClipClock, source: ClipClock, shift_s: float) -> Beside:
    """Returns the frames that belong side by side: those shown at the same moment of the sound.

    Args:
      fake: Of the manipulated clip.
      source: Of its source.
      shift_s: As in `Beside`.
    """
    # Codecs leave sound some milliseconds off; below a frame's time, the frame at the same place is still the one.
    shift = shift_s if abs(shift_s) >= max(fake.period_s, source.period_s) else 0.0
    found = nearest_rows(source, fake.times_s - shift)
    rows = np.flatnonzero(found >= 0)
    return Beside(shift_s, rows, found[rows])


def against_source(
    fake: VideoFeatures, source: VideoFeatures | None, pairs: Beside | None, remark: str, missing: Mapping[str, str]
) -> Scores:
    """Returns how a manipulated clip stands to what it was made from, moment by moment.

    Args:
      fake: What was read off it.
      source: What was read off its source, or None.
      pairs: Which of their frames belong together, where there is a source.
      remark: Why there is no source.
      missing: Networks that are not here.
    """
    scores = Scores()
    mouth = ("lip_landmark_distance", "mouth_correlation", "lag_frames", "lag_ms")
    if source is None or pairs is None:
        scores.add({}, dict.fromkeys((*mouth, "identity_csim"), remark or "no source"))
        return scores
    unmarked = [
        f"{who} has no landmarks ({one.landmarks_remark})"
        for who, one in (("the clip", fake), ("its source", source))
        if one.landmarks is None
    ]
    if fake.landmarks is None or source.landmarks is None:
        scores.add({}, dict.fromkeys(mouth, "; ".join(unmarked)))
    else:
        scores.add(*_mouth(source.landmarks[pairs.source_rows], fake.landmarks[pairs.rows]))
        scores.add(*_lag(source, fake, pairs.shift_s))
    own, other = (one.network("arcface") for one in (fake, source))
    if own is None or other is None:
        scores.add({}, {"identity_csim": _absent("arcface", fake if own is None else source, missing)})
    else:
        first, second = other["features"][pairs.source_rows], own["features"][pairs.rows]
        seen = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
        value = float(paired_cosine(first[seen], second[seen]).mean()) if seen.any() else math.nan
        scores.add({"identity_csim": value}, {})
    return scores


def against_truth(
    fake: Path, truth: Path, rows: Int[np.ndarray, " t"], keys: tuple[str, str], cache: ScoreCache
) -> dict[str, float]:
    """Returns PSNR and SSIM of a clip's frames, of those that have a true one.

    Args:
      fake: The clip's video.
      truth: What it should show, of the same size.
      rows: The true frame that belongs to each of its own, not falling, or -1.
      keys: Fingerprints of both.
      cache: Where results are kept.
    """
    key = digest(*keys, str(rows.tolist()))
    stored = cache.find("pictures", key)
    if stored is None:
        scores = []
        others = enumerate(read_frames(truth))
        number, other = next(others)
        for own, wanted in zip(read_frames(fake), rows.tolist(), strict=False):
            if wanted < 0:
                continue
            while number < wanted:
                number, other = next(others)
            if own.image is None or other.image is None:
                raise BrokenMediaError("a picture cannot be read")
            scores.append((min(psnr(own.image, other.image), MOST_DB), ssim(own.image, other.image)))
        stored = {"scores": np.array(scores)}
        cache.store("pictures", key, stored)
    quality, detail = stored["scores"].mean(axis=0)
    return {"psnr_db": float(quality), "ssim": float(detail)}


def _mouth(source: np.ndarray, fake: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    distances = lip_landmark_distance(source, fake)
    openings = mouth_opening(source), mouth_opening(fake)
    values, lacking = {}, {}
    if np.isfinite(distances).any():
        values["lip_landmark_distance"] = float(np.nanmean(distances))
        values["mouth_correlation"] = mouth_correlation(*openings)
    else:
        lacking = dict.fromkeys(("lip_landmark_distance", "mouth_correlation"), "no frame with both faces")
    return values, lacking


def _lag(source: VideoFeatures, fake: VideoFeatures, shift_s: float) -> tuple[dict[str, float], dict[str, str]]:
    """How late the mouth is against the sound, beside the source's."""
    assert source.landmarks is not None and fake.landmarks is not None
    openings = mouth_opening(source.landmarks), mouth_opening(fake.landmarks)
    clocks = source.clock, fake.clock
    period = clocks[0].period_s
    ends = [round(clock.span_s / period) for clock in clocks]
    on_time = [
        _at(opening, clock, period * np.arange(end)) for opening, clock, end in zip(openings, clocks, ends, strict=True)
    ]
    found = best_lag(*on_time)
    late_s = None if found is None else found[0] * period
    if fake.frames == source.frames and not alike(*clocks):
        # Other times, but frame for frame the source's: a clip that plays at another pace.
        one_for_one = best_lag(*openings)
        if one_for_one is not None and (found is None or one_for_one[1] >= found[1]):
            late_s = one_for_one[0] * period + float(np.mean(clocks[1].times_s - clocks[0].times_s))
    if late_s is None:
        return {}, dict.fromkeys(("lag_frames", "lag_ms"), "a mouth that does not move, or too few frames")
    late_s -= shift_s
    return {"lag_frames": round(late_s / period, 3) + 0.0, "lag_ms": round(1000 * late_s, 1) + 0.0}, {}


def _at(opening: Float[np.ndarray, " t"], clock: ClipClock, times_s: Float[np.ndarray, " n"]) -> np.ndarray:
    rows = nearest_rows(clock, times_s)
    return np.where(rows >= 0, opening[rows], np.nan)


def _landmark_jitter(features: VideoFeatures) -> tuple[dict[str, float], dict[str, str]]:
    name = "landmark_jitter"
    if features.landmarks is None:
        return {}, {name: f"no landmarks ({features.landmarks_remark})"}
    if features.landmarks_from == PROBE:
        return {}, {name: "the probe reads mouths only"}
    found = landmark_jitter(features.landmarks)
    if not np.isfinite(found).any():
        return {}, {name: "no three frames in a row with a face"}
    return {name: float(np.nanmean(found))}, {}


def _absent(network: str, features: VideoFeatures, missing: Mapping[str, str]) -> str:
    return features.lacking.get(network, "") or f"no --{network}" + ("" if network in missing else " result")


Seen = Mapping[Path, VideoFeatures]
"""What was read off real videos."""

_LSE = tuple(f"lse_{letter}_{protocol.name}" for protocol in PROTOCOLS for letter in "dc")

_SAME_LENGTH = 0.75
"""Of a frame: clips of other frame rates, but of one length, end within half a frame of each other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A manipulated clip that was scored, with all that pictures of it are made of."""

    matched: Matched
    features: VideoFeatures
    source: VideoFeatures | None
    pairs: Beside | None
    truth: Clip | None
    scores: ClipScores


def known(seen: Seen, clip: Clip | None) -> VideoFeatures | None:
    """Returns what was read off a clip's video, or None."""
    return None if clip is None else seen.get(clip.video)


def score_fake(run: Run, matched: Matched, features: VideoFeatures | str, seen: Seen) -> Scored | None:
    """Scores a manipulated clip, or notes why it is refused."""
    clip = matched.fake.clip
    source, truth = known(seen, matched.source), known(seen, matched.truth)
    reason = features if isinstance(features, str) else _refusal(run.settings, matched, features, source)
    if reason or isinstance(features, str):
        run.refused.append(Refusal("fake", clip.clip_id, reason))
        return None
    scores = by_itself(features, clip.emotion, run.networks.missing)
    remark = matched.remark or ("its source cannot be read" if matched.source is not None else "")
    pairs = None
    if source is not None and matched.source is not None:
        pairs = beside(features.clock, source.clock, run.sound_shift(clip, matched.source))
        if not len(pairs.rows):
            reason = f"its sound comes {pairs.shift_s:+.2f} s beside that of its source: no picture of both at one time"
            run.refused.append(Refusal("fake", clip.clip_id, reason))
            return None
    other = against_source(features, source, pairs, remark, run.networks.missing)
    scores.add(other.values, other.lacking)
    sound = run.sound(clip, matched.source)
    _add_lip_sync(run, scores, clip, features, sound)
    used = _add_truth(run, scores, matched, features, truth)
    found = ClipScores(
        clip=clip.clip_id,
        speaker=clip.speaker,
        emotion=clip.emotion,
        sentence=clip.sentence,
        frames=features.frames if pairs is None else len(pairs.rows),
        values=dict(sorted(scores.values.items())),
        lacking=dict(sorted(scores.lacking.items())),
        source="" if matched.source is None else matched.source.clip_id,
        truth="" if used is None else used.clip_id,
        landmarks=features.landmarks_from,
        sound=sound[2] if sound is not None else "",
        clock="" if source is None else _other_clock(features, source),
    )
    return Scored(matched, features, source, pairs, used, found)


def score_real(run: Run, seen: Seen, clip: Clip) -> ClipScores | None:
    """Scores a real clip by itself, to compare with."""
    features = seen.get(clip.video)
    if features is None:
        return None
    scores = by_itself(features, clip.emotion, run.networks.missing)
    sound = run.sound(clip, None)
    _add_lip_sync(run, scores, clip, features, sound)
    return ClipScores(
        clip=clip.clip_id,
        speaker=clip.speaker,
        emotion=clip.emotion,
        sentence=clip.sentence,
        frames=features.frames,
        values=dict(sorted(scores.values.items())),
        lacking=dict(sorted(scores.lacking.items())),
        landmarks=features.landmarks_from,
        sound=sound[2] if sound is not None else "",
    )


def _refusal(
    settings: EvaluationSettings, matched: Matched, features: VideoFeatures, source: VideoFeatures | None
) -> str:
    if source is None:
        return ""
    if (features.width, features.height) != (source.width, source.height):
        return (
            f"frames of {features.width} x {features.height}, its source {_id(matched.source)} of {source.width} x"
            f" {source.height}: expected the same"
        )
    # Frame for frame the source's at another pace is scored, and said.
    if features.frames != source.frames and _apart_s(features, source) and not settings.allow_lengths:
        return (
            f"{features.frames} frames, its source {_id(matched.source)} {source.frames}: {features.clock.span_s:.2f} s"
            f" beside {source.clock.span_s:.2f} s; --allow-lengths scores the time that both have"
        )
    return ""


def _apart_s(features: VideoFeatures, other: VideoFeatures) -> float:
    """By how much a clip is longer than another, seconds; 0 within most of a frame."""
    first, second = features.clock, other.clock
    apart = first.span_s - second.span_s
    return apart if abs(apart) > _SAME_LENGTH * max(first.period_s, second.period_s) else 0.0


def _other_clock(features: VideoFeatures, source: VideoFeatures) -> str:
    """How the clock of a clip differs from its source's such that a viewer sees it, or nothing."""
    first, second = features.clock, source.clock
    if features.frames != source.frames:
        return ""
    if _apart_s(features, source):
        return (
            f"plays at {first.rate_fps:.4g} and its source at {second.rate_fps:.4g} frames a second: the same"
            f" {features.frames} frames take {first.span_s:.2f} s instead of {second.span_s:.2f} s"
        )
    if not alike(first, second):
        most = float(np.abs(first.times_s - second.times_s).max())
        return f"has as many frames as its source, at times up to {1000 * most:.0f} ms apart"
    return ""


def _add_lip_sync(
    run: Run, scores: Scores, clip: Clip, features: VideoFeatures, sound: tuple[Sound, str, str] | None
) -> None:
    if run.networks.sync is None:
        scores.add({}, dict.fromkeys(_LSE, "no --syncnet"))
    elif sound is None:
        scores.add({}, dict.fromkeys(_LSE, "no sound, neither its own nor its source's"))
    else:
        scores.add(*lip_sync_scores(clip.video, features, sound[0], sound[1], run.networks.sync, run.cache))


def _add_truth(
    run: Run, scores: Scores, matched: Matched, features: VideoFeatures, truth: VideoFeatures | None
) -> Clip | None:
    """Adds PSNR and SSIM where the truth exists; returns the truth that was used."""
    reason = "no true frames"
    if matched.truth is not None and truth is None:
        reason = f"its truth {_id(matched.truth)} cannot be read"
    elif matched.truth is not None and truth is not None:
        size = (features.width, features.height)
        same = size == (truth.width, truth.height) and alike(features.clock, truth.clock)
        named = matched.truth_named and size == (truth.width, truth.height)
        if same or (named and (run.settings.allow_lengths or not _apart_s(features, truth))):
            try:
                keys = features.key, truth.key
                rows = nearest_rows(truth.clock, features.times_s)
                scores.add(against_truth(matched.fake.clip.video, matched.truth.video, rows, keys, run.cache), {})
            except (BrokenMediaError, InputError) as error:
                reason = str(error)
            else:
                return matched.truth
        else:
            reason = (
                f"the real clip {_id(matched.truth)} has {truth.frames} frames of {truth.width} x {truth.height} in"
                f" {truth.clock.span_s:.2f} s, this one {features.frames} of {features.width} x {features.height} in"
                f" {features.clock.span_s:.2f} s: not the truth frame by frame"
            )
    scores.add({}, dict.fromkeys(("psnr_db", "ssim"), reason))
    return None


def _id(clip: Clip | None) -> str:
    return "" if clip is None else clip.clip_id
