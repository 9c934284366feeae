"""Figures of pools of clips: Frechet distances by emotion, and expression similarities by emotion and speaker."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.evals.feature_similarity import chosen_images, cross_cosine
from asccl_jax.evals.frechet import Moments, frechet_distance
from asccl_jax.evals.video_metrics import PoolScore

__all__ = ["PooledClip", "expression_pools", "frechet_pools"]


@dataclasses.dataclass(frozen=True, eq=False)
class PooledClip:
    """A clip whose features go into pools.

    Attributes:
      clip: Its id; clips are pooled in this order.
      speaker: Whose face.
      emotion: Shown or asked for.
      frames: Number of its features.
      features: Reads them; called anew each time, so that memory holds one clip at a time.
    """

    clip: str
    speaker: str
    emotion: str
    frames: int
    features: Callable[[], Float[np.ndarray, "n d"]]


def frechet_pools(name: str, real: Sequence[PooledClip], fake: Sequence[PooledClip]) -> list[PoolScore]:
    """Returns the Frechet distance of each emotion that both sides have, pooled over speakers.

    Frames whose features are not finite, as those without a face, do not count. Only real clips of the manipulated
    speakers do, as in the published protocol.

    Args:
      name: The metric's name.
      real: Real clips.
      fake: Manipulated clips.
    """
    speakers = {clip.speaker for clip in fake}
    scores = []
    for emotion in EMOTIONS:
        sides = [
            _moments([clip for clip in side if clip.emotion == emotion and clip.speaker in speakers])
            for side in (real, fake)
        ]
        counts = [moments.count or 0 for moments in sides]
        if min(counts) >= 2:
            scores.append(PoolScore(name, emotion, "", frechet_distance(*sides), *counts))
    return scores


def expression_pools(name: str, real: Sequence[PooledClip], fake: Sequence[PooledClip]) -> list[PoolScore]:
    """Returns the expression similarity of each emotion and speaker that both sides have.

    As published: of each emotion one stream of random numbers runs over the speakers, in the order of their names.

    Args:
      name: The metric's name.
      real: Real clips.
      fake: Manipulated clips.
    """
    scores = []
    for emotion in EMOTIONS:
        sides = [[clip for clip in side if clip.emotion == emotion and clip.frames] for side in (real, fake)]
        speakers = sorted({clip.speaker for clip in sides[0]} & {clip.speaker for clip in sides[1]})
        own = [{one: [clip for clip in side if clip.speaker == one] for one in speakers} for side in sides]
        counts = [{one: sum(clip.frames for clip in clips) for one, clips in side.items()} for side in own]
        for one, chosen in chosen_images(*counts).items():
            features = [_rows(side[one], rows) for side, rows in zip(own, chosen, strict=True)]
            value = cross_cosine(*features)
            scores.append(PoolScore(name, emotion, one, value, *(len(rows) for rows in chosen)))
    return scores


def _moments(clips: Sequence[PooledClip]) -> Moments:
    each = (Moments.of(_finite(clip.features())) for clip in sorted(clips, key=lambda clip: clip.clip))
    nothing = Moments.of(np.zeros((0, 1)))
    return functools.reduce(lambda sums, own: sums.merge(own) if sums.count else own, each, nothing)


def _finite(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "m d"]:
    return features[np.isfinite(features).all(axis=1)]


def _rows(clips: Sequence[PooledClip], rows: Sequence[int]) -> Float[np.ndarray, "n d"]:
    """Features of some rows of the clips laid end to end, in the order of the rows."""
    wanted = np.sort(np.array(rows, np.int64))
    found, first = [], 0
    for clip in sorted(clips, key=lambda clip: clip.clip):
        own = wanted[(wanted >= first) & (wanted < first + clip.frames)] - first
        if len(own):
            found.append(clip.features()[own])
        first += clip.frames
    return np.concatenate(found)
