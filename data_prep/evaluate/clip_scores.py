"""The scores of one clip: by itself, against its source, against its truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asccl_jax.evals.feature_similarity import paired_cosine
from asccl_jax.evals.image_scores import psnr, ssim
from asccl_jax.evals.lip_landmarks import lag_frames, lip_landmark_distance, mouth_correlation, mouth_opening
from asccl_jax.evals.temporal_jitter import landmark_jitter
from asccl_jax.models.efficient_face import EMOTIONS_OF_CLASSES
from data_prep.decode import BrokenMediaError, read_frames
from data_prep.evaluate.landmark_sources import PROBE
from data_prep.evaluate.score_cache import ScoreCache, digest
from data_prep.evaluate.video_features import VideoFeatures

__all__ = ["Scores", "against_source", "against_truth", "by_itself"]

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


def against_source(
    fake: VideoFeatures, source: VideoFeatures | None, remark: str, missing: Mapping[str, str]
) -> Scores:
    """Returns how a manipulated clip stands to what it was made from, frame by frame.

    Args:
      fake: What was read off it.
      source: What was read off its source, or None.
      remark: Why there is no source.
      missing: Networks that are not here.
    """
    scores = Scores()
    mouth = ("lip_landmark_distance", "mouth_correlation", "lag_frames")
    if source is None:
        scores.add({}, dict.fromkeys((*mouth, "identity_csim"), remark or "no source"))
        return scores
    frames = min(fake.frames, source.frames)
    unmarked = [
        f"{who} has no landmarks ({one.landmarks_remark})"
        for who, one in (("the clip", fake), ("its source", source))
        if one.landmarks is None
    ]
    if fake.landmarks is None or source.landmarks is None:
        scores.add({}, dict.fromkeys(mouth, "; ".join(unmarked)))
    else:
        scores.add(*_mouth(source.landmarks[:frames], fake.landmarks[:frames]))
    own, other = (one.network("arcface") for one in (fake, source))
    if own is None or other is None:
        scores.add({}, {"identity_csim": _absent("arcface", fake if own is None else source, missing)})
    else:
        first, second = other["features"][:frames], own["features"][:frames]
        seen = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
        value = float(paired_cosine(first[seen], second[seen]).mean()) if seen.any() else math.nan
        scores.add({"identity_csim": value}, {})
    return scores


def against_truth(fake: Path, truth: Path, keys: tuple[str, str], cache: ScoreCache) -> dict[str, float]:
    """Returns PSNR and SSIM of a clip's frames, as many as both have.

    Args:
      fake: The clip's video.
      truth: What it should show, of the same size.
      keys: Fingerprints of both.
      cache: Where results are kept.
    """
    key = digest(*keys)
    stored = cache.find("pictures", key)
    if stored is None:
        rows = []
        for own, other in zip(read_frames(fake), read_frames(truth), strict=False):
            if own.image is None or other.image is None:
                raise BrokenMediaError("a picture cannot be read")
            rows.append((min(psnr(own.image, other.image), MOST_DB), ssim(own.image, other.image)))
        stored = {"scores": np.array(rows)}
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
    lag = lag_frames(*openings)
    if lag is None:
        lacking["lag_frames"] = "a mouth that does not move, or too few frames"
    else:
        values["lag_frames"] = float(lag)
    return values, lacking


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
