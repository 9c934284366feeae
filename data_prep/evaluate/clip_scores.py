"""The scores of one clip: by itself, against its source, against its truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.evals.feature_similarity import paired_cosine
from asccl_jax.evals.image_scores import psnr, ssim
from asccl_jax.evals.lip_landmarks import best_lag, lip_landmark_distance, mouth_correlation, mouth_opening
from asccl_jax.evals.temporal_jitter import landmark_jitter
from asccl_jax.models.efficient_face import EMOTIONS_OF_CLASSES
from data_prep.decode import BrokenMediaError, read_frames
from data_prep.evaluate.clip_times import ClipClock, alike, nearest_rows
from data_prep.evaluate.landmark_sources import PROBE
from data_prep.evaluate.score_cache import ScoreCache, digest
from data_prep.evaluate.video_features import VideoFeatures

__all__ = ["Beside", "Scores", "against_source", "against_truth", "beside", "by_itself"]

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
