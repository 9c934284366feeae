"""Figures of an evaluation: over all, by emotion, by speaker; emotions weigh the same, as in published tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.evals.bootstrap import Interval, Units, choose_units, mean_over_groups
from asccl_jax.evals.video_metrics import ClipScores, Metric, PoolScore

__all__ = ["by_emotion", "by_speaker", "emotions_of", "overall", "speakers_of"]


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
