"""The scores of a manipulated clip and of a real one, or why a clip is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from asccl_jax.errors import InputError
from asccl_jax.evals.video_evaluation import Refusal
from asccl_jax.evals.video_metrics import ClipScores
from data_prep.clips import Clip
from data_prep.decode import BrokenMediaError, Sound
from data_prep.evaluate.clip_scores import Scores, against_source, against_truth, by_itself
from data_prep.evaluate.evaluation_run import EvaluationSettings, Run
from data_prep.evaluate.lip_sync_scores import PROTOCOLS, lip_sync_scores
from data_prep.evaluate.matching import Matched
from data_prep.evaluate.video_features import VideoFeatures

__all__ = ["Scored", "Seen", "known", "score_fake", "score_real"]

Seen = Mapping[Path, VideoFeatures]
"""What was read off real videos."""

_LSE = tuple(f"lse_{letter}_{protocol.name}" for protocol in PROTOCOLS for letter in "dc")


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A manipulated clip that was scored, with all that pictures of it are made of."""

    matched: Matched
    features: VideoFeatures
    source: VideoFeatures | None
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
    other = against_source(features, source, remark, run.networks.missing)
    scores.add(other.values, other.lacking)
    sound = run.sound(clip, matched.source)
    _add_lip_sync(run, scores, clip, features, sound)
    used = _add_truth(run, scores, matched, features, truth)
    found = ClipScores(
        clip=clip.clip_id,
        speaker=clip.speaker,
        emotion=clip.emotion,
        sentence=clip.sentence,
        frames=features.frames if source is None else min(features.frames, source.frames),
        values=dict(sorted(scores.values.items())),
        lacking=dict(sorted(scores.lacking.items())),
        source="" if matched.source is None else matched.source.clip_id,
        truth="" if used is None else used.clip_id,
        landmarks=features.landmarks_from,
        sound=sound[2] if sound is not None else "",
    )
    return Scored(matched, features, source, used, found)


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
    if features.frames != source.frames and not settings.allow_lengths:
        return (
            f"{features.frames} frames, its source {_id(matched.source)} {source.frames}: frames are compared one by"
            " one; --allow-lengths scores the first that both have"
        )
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
        alike = (features.frames, features.width, features.height) == (truth.frames, truth.width, truth.height)
        if alike or (matched.truth_named and run.settings.allow_lengths and features.width == truth.width):
            try:
                keys = features.key, truth.key
                scores.add(against_truth(matched.fake.clip.video, matched.truth.video, keys, run.cache), {})
            except (BrokenMediaError, InputError) as error:
                reason = str(error)
            else:
                return matched.truth
        else:
            reason = (
                f"the real clip {_id(matched.truth)} has {truth.frames} frames of {truth.width} x {truth.height}, this"
                f" one {features.frames} of {features.width} x {features.height}: not the truth frame by frame"
            )
    scores.add({}, dict.fromkeys(("psnr_db", "ssim"), reason))
    return None


def _id(clip: Clip | None) -> str:
    return "" if clip is None else clip.clip_id
