"""What manipulated videos are scored by: the metrics, whose names carry their protocol, and the scores of a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.evals.statistics import Interval, Units, choose_units, mean_over_groups
from data_prep.evaluate.video_references import MapCheck

__all__ = [
    "CLIP_METRICS",
    "METRICS",
    "POOL_METRICS",
    "ClipScores",
    "Metric",
    "PoolScore",
    "ProbeError",
    "Refusal",
    "ShownClip",
    "VideoEvaluation",
    "by_emotion",
    "by_speaker",
    "emotions_of",
    "metric",
    "overall",
    "speakers_of",
]

Better = Literal["lower", "higher", "zero"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A figure and how to read it.

    Attributes:
      name: Its name in files, protocol and all.
      title: Its name in tables.
      digits: Decimal places worth showing.
      better: Which values are good.
      needs: The network it needs, or nothing.
      pooled: Whether it belongs to a pool of clips and has no value for one.
      short: What it tells, in few words.
      meaning: How it is computed, in a sentence.
    """

    name: str
    title: str
    digits: int
    better: Better
    needs: str
    pooled: bool
    short: str
    meaning: str

    @property
    def arrow(self) -> str:
        """Which way is better, as a sign."""
        return {"lower": "↓", "higher": "↑", "zero": "→ 0"}[self.better]


METRICS = (
    Metric(
        "fad_resnetface18",
        "FAD (ResNetFace-18)",
        3,
        "lower",
        "resnet-face",
        True,
        "Distance from real faces, as the papers compute it.",
        "Fréchet distance between grey face features of real and manipulated frames, pooled over speakers, the mean"
        " over emotions. The published tables' FAD.",
    ),
    Metric(
        "fad_arcface",
        "FAD (ArcFace)",
        2,
        "lower",
        "arcface",
        True,
        "Distance from real faces, by ArcFace.",
        "The same distance on ArcFace features of faces aligned by five points. On another scale than the papers'.",
    ),
    Metric(
        "expression_csim",
        "expression CSIM",
        3,
        "higher",
        "efficient-face",
        True,
        "Likeness of expressions to real ones: the papers' CSIM.",
        "Cosine of EfficientFace features of up to 100 real and 100 manipulated frames of a speaker, each with each: it"
        " measures expression, not identity. The papers' 'CSIM'.",
    ),
    Metric(
        "identity_csim",
        "identity CSIM",
        3,
        "higher",
        "arcface",
        False,
        "Likeness of the person to the source, frame by frame.",
        "Cosine of ArcFace features of each frame and the source's frame of the same time. Not in the papers.",
    ),
    Metric(
        "lse_d_30fps",
        "LSE-D, 30 fps",
        3,
        "lower",
        "syncnet",
        False,
        "Distance of lips and speech, in the papers' form.",
        "SyncNet's distance between lips and speech at the best shift, in the papers' form: frames taken as 30 a"
        " second. Zero-lag videos, so no sound is skipped.",
    ),
    Metric(
        "lse_c_30fps",
        "LSE-C, 30 fps",
        3,
        "higher",
        "syncnet",
        False,
        "Confidence of their agreement, in the papers' form.",
        "How far the best shift stands out from the median one, in the same form.",
    ),
    Metric(
        "lse_d_25fps",
        "LSE-D, 25 fps",
        3,
        "lower",
        "syncnet",
        False,
        "Distance of lips and speech, as SyncNet was made.",
        "SyncNet's distance on video resampled to the 25 frames a second that SyncNet was made for.",
    ),
    Metric(
        "lse_c_25fps",
        "LSE-C, 25 fps",
        3,
        "higher",
        "syncnet",
        False,
        "Confidence of their agreement, as SyncNet was made.",
        "How far the best shift stands out from the median one, at 25 frames a second.",
    ),
    Metric(
        "lip_landmark_distance",
        "lip landmark distance",
        4,
        "lower",
        "",
        False,
        "Lips from the source's, over the distance of the eyes.",
        "Mean distance between the 20 lip landmarks of each frame and those of the source at the same moment of the"
        " sound, both faces placed by the"
        " outer corners of their eyes, whose distance is 1. An emotion moves lips too: zero is a copy of the source.",
    ),
    Metric(
        "mouth_correlation",
        "mouth correlation",
        3,
        "higher",
        "",
        False,
        "Between the mouth's opening and the source's, over time.",
        "Correlation between the mouth's opening and the source's at the same moments of the sound.",
    ),
    Metric(
        "lag_frames",
        "lag, frames",
        1,
        "zero",
        "",
        False,
        "Mouth against sound, beside the source's; positive is late.",
        "The same in frames of the source.",
    ),
    Metric(
        "lag_ms",
        "lag, ms",
        0,
        "zero",
        "",
        False,
        "Mouth against sound, beside the source's; positive is late.",
        "How much later the mouth moves against the sound than in the source: the shift at which the mouth's opening"
        " fits the source's best, less that of the sound. Without one sound in both, counted from the first frames.",
    ),
    Metric(
        "emotion_accuracy_efficientface",
        "emotion accuracy",
        3,
        "higher",
        "efficient-face",
        False,
        "Frames that show the emotion asked for, to EfficientFace.",
        "Share of frames in which EfficientFace sees the emotion that was asked for.",
    ),
    Metric(
        "landmark_jitter",
        "landmark jitter",
        5,
        "lower",
        "",
        False,
        "Trembling of the landmarks, over the distance of the eyes.",
        "Mean second difference of the 68 landmarks from frame to frame, over the distance between the eyes. Speech and"
        " the landmark finder give some: compare with the real clips' row.",
    ),
    Metric(
        "picture_jitter",
        "picture jitter",
        5,
        "lower",
        "",
        False,
        "Flicker, as a share of full scale.",
        "Mean second difference of the pixels from frame to frame, as a share of full scale.",
    ),
    Metric(
        "psnr_db",
        "PSNR, dB",
        2,
        "higher",
        "",
        False,
        "Against the true frames, where they exist.",
        "Mean over frames (at most 100 each) against the true ones, where they exist: a clip that the list names, or"
        " the real clip of the same speaker, sentence and emotion with as many frames of the same size.",
    ),
    Metric(
        "ssim",
        "SSIM",
        4,
        "higher",
        "",
        False,
        "Against the true frames, where they exist.",
        "Structural similarity to the same true frames; 1 is equal.",
    ),
)

POOL_METRICS = tuple(one for one in METRICS if one.pooled)
CLIP_METRICS = tuple(one for one in METRICS if not one.pooled)


def metric(name: str) -> Metric:
    """Returns the metric of a name."""
    return next(one for one in METRICS if one.name == name)


@dataclasses.dataclass(frozen=True)
class ClipScores:
    """What was measured on one clip.

    Attributes:
      clip: Its id.
      speaker: Whose face.
      emotion: Emotion asked for, or shown if it is real.
      sentence: What is said.
      frames: How many frames were scored; beside a source those that have one of its at their time.
      values: Figures by metric; one that could not be had is absent.
      lacking: Why those are absent, by metric.
      source: Id of the clip it was made from, or nothing.
      truth: Id of the clip it should equal, or nothing.
      landmarks: Where its landmarks came from, or nothing.
      sound: Whose sound lips were compared with: "own", "source" or nothing.
      clock: How its clock differs from its source's, as what follows its name, or nothing.
    """

    clip: str
    speaker: str
    emotion: str
    sentence: str
    frames: int
    values: Mapping[str, float]
    lacking: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source: str = ""
    truth: str = ""
    landmarks: str = ""
    sound: str = ""
    clock: str = ""


@dataclasses.dataclass(frozen=True)
class PoolScore:
    """A figure of a pool of clips.

    Attributes:
      metric: Which.
      emotion: Whose frames were pooled.
      speaker: Of which speaker, or nothing for all of them.
      value: The figure.
      real: Real frames in the pool.
      fake: Manipulated frames in the pool.
    """

    metric: str
    emotion: str
    speaker: str
    value: float
    real: int
    fake: int


# Figures of an evaluation: over all, by emotion, by speaker; emotions weigh the same, as in published tables.


def overall(metric: Metric, clips: Sequence[ClipScores], pools: Sequence[PoolScore]) -> Interval | None:
    """Returns the mean over emotions, or None where nothing has the figure.

    An interval resamples speakers, or where there are few of them the sources of clips, or the clips of each emotion. A
    figure of pools that is split by speaker varies with the speakers; one that pools them all has no interval: drawing
    clips with replacement makes pools smaller than they are, which a Frechet distance takes for a difference.

    Args:
      metric: Which figure.
      clips: Scores of clips.
      pools: Scores of pools.
    """
    if metric.pooled:
        own = [pool for pool in pools if pool.metric == metric.name]
        values, emotions = [pool.value for pool in own], [pool.emotion for pool in own]
        units = choose_units(("speaker", [pool.speaker for pool in own]))
    else:
        having = [clip for clip in clips if metric.name in clip.values]
        values, emotions = [clip.values[metric.name] for clip in having], [clip.emotion for clip in having]
        units = _units(having)
    if not values:
        return None
    if metric.pooled and not any(pool.speaker for pool in own):
        return Interval(float(np.mean(values)), float("nan"), float("nan"), len(values))
    return mean_over_groups(np.array(values, np.float64), emotions, units)


def by_emotion(metric: Metric, clips: Sequence[ClipScores], pools: Sequence[PoolScore]) -> dict[str, Interval]:
    """Returns the figure of each emotion that has it."""
    found = {}
    for emotion in EMOTIONS:
        own = [one for one in clips if one.emotion == emotion]
        figure = overall(metric, own, [one for one in pools if one.emotion == emotion])
        if figure is not None:
            found[emotion] = figure
    return found


def by_speaker(metric: Metric, clips: Sequence[ClipScores], pools: Sequence[PoolScore]) -> dict[str, Interval]:
    """Returns the figure of each speaker that has it: the mean over emotions."""
    found = {}
    for speaker in speakers_of(clips):
        own = [one for one in clips if one.speaker == speaker]
        figure = overall(metric, own, [one for one in pools if one.speaker == speaker])
        if figure is not None:
            found[speaker] = figure
    return found


def emotions_of(clips: Sequence[ClipScores]) -> list[str]:
    """Returns the emotions among clips, in the order of their labels."""
    return [emotion for emotion in EMOTIONS if any(one.emotion == emotion for one in clips)]


def speakers_of(clips: Sequence[ClipScores]) -> list[str]:
    """Returns the speakers of clips, sorted."""
    return sorted({one.speaker for one in clips})


def _units(clips: Sequence[ClipScores]) -> Units:
    levels = [("speaker", [clip.speaker for clip in clips])]
    if any(clip.source for clip in clips):
        levels.append(("source", [clip.source or clip.clip for clip in clips]))
    return choose_units(*levels, ("clip", [clip.clip for clip in clips]))


# All that an evaluation of manipulated videos found: scores, what could not be scored and why, what was compared.


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A clip that was not scored.

    Attributes:
      side: "fake", "real" or "source".
      clip: Its id or path.
      reason: Why, in one line.
    """

    side: str
    clip: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ProbeError:
    """How far a landmark probe errs on frames it has not seen, over the distance between the eyes."""

    error: float
    frames: int


@dataclasses.dataclass(frozen=True, eq=False)
class ShownClip:
    """A clip to be looked at.

    Attributes:
      clip: Its id.
      rows: Heading and pictures, a row each, as many pictures in each.
      numbers: Which frames those are.
      openings: Times in seconds and the mouth's opening at them, by heading; empty without landmarks.
      video: A small film of all rows side by side, an mp4 file; empty if none was made.
      poster: A frame from its middle, a JPEG file.
    """

    clip: str
    rows: tuple[tuple[str, tuple[UInt8[np.ndarray, "_ _ 3"], ...]], ...]
    numbers: tuple[int, ...]
    openings: Mapping[str, tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]
    video: bytes = b""
    poster: bytes = b""


@dataclasses.dataclass(frozen=True, eq=False)
class VideoEvaluation:
    """An evaluation.

    Attributes:
      clips: Scores of manipulated clips, in the order of their ids.
      real: Scores that real clips have by themselves, to compare with.
      pools: Figures of pools.
      refused: What was not scored.
      networks: SHA-256 of the published file behind each network that was there.
      missing: By network that was not: which file to get from where.
      silent: Manipulated clips for which there is no sound at all.
      check: How the clips stand to a driver map, if that was asked.
      probe: The probe's error, if one was used.
      caveats: What keeps the figures from being comparable with published ones.
      shown: Clips to be looked at.
    """

    clips: tuple[ClipScores, ...]
    real: tuple[ClipScores, ...]
    pools: tuple[PoolScore, ...]
    refused: tuple[Refusal, ...]
    networks: Mapping[str, str]
    missing: Mapping[str, str]
    silent: int
    check: MapCheck | None
    probe: ProbeError | None
    caveats: tuple[str, ...]
    shown: tuple[ShownClip, ...]
