"""The scores of a manipulated clip and of a real one, or why a clip is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asccl_jax.errors import InputError
from asccl_jax.evals.video_evaluation import Refusal
from asccl_jax.evals.video_metrics import ClipScores
from data_prep.clips import Clip
from data_prep.decode import BrokenMediaError, Sound
from data_prep.evaluate.clip_scores import Beside, Scores, against_source, against_truth, beside, by_itself
from data_prep.evaluate.clip_times import alike, nearest_rows
from data_prep.evaluate.evaluation_run import EvaluationSettings, Run
from data_prep.evaluate.lip_sync_scores import PROTOCOLS, lip_sync_scores
from data_prep.evaluate.matching import Matched
from data_prep.evaluate.video_features import VideoFeatures

__all__ = ["Scored", "Seen", "known", "score_fake", "score_real"]

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
