"""All that an evaluation of manipulated videos found: scores, what could not be scored and why, what was compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from asccl_jax.evals.video_driver_maps import MapCheck
from asccl_jax.evals.video_metrics import ClipScores, PoolScore

__all__ = ["ProbeError", "Refusal", "ShownClip", "VideoEvaluation"]


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
