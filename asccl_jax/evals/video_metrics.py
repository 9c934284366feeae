"""What manipulated videos are scored by: the metrics, whose names carry their protocol, and the scores of a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

__all__ = ["CLIP_METRICS", "METRICS", "POOL_METRICS", "ClipScores", "Metric", "PoolScore", "metric"]

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
