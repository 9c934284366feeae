"""Figures of an evaluation: over all, by emotion, by speaker; emotions weigh the same, as in published tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.evals.bootstrap import RESAMPLES, Interval
from asccl_jax.evals.video_metrics import ClipScores, Metric, PoolScore

__all__ = ["by_emotion", "by_speaker", "emotions_of", "overall", "speakers_of", "stratified_mean"]

_PERCENT = (2.5, 97.5)


def stratified_mean(groups: Sequence[Float[np.ndarray, " _"]]) -> Interval:
    """Returns the mean of the groups' means, with a 95 % interval that resamples within each group.

    >>> stratified_mean([np.array([1.0]), np.array([2.0, 4.0])]).value
    2.0

    Args:
      groups: The values of each group, one or more each.

    Returns:
      The mean; its interval is NaN where no group has two values, as nothing then tells how they scatter.
    """
    random = np.random.default_rng(0)
    samples = np.zeros(RESAMPLES)
    for values in groups:
        shares = random.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES) / len(values)
        samples += shares @ values / len(groups)
    value = float(np.mean([values.mean() for values in groups]))
    low, high = np.percentile(samples, _PERCENT) if max(map(len, groups)) > 1 else (np.nan, np.nan)
    return Interval(value, float(low), float(high), sum(map(len, groups)))


def overall(metric: Metric, clips: Sequence[ClipScores], pools: Sequence[PoolScore]) -> Interval | None:
    """Returns the mean over emotions, or None where nothing has the figure.

    A figure of pools that is split by speaker varies with the speakers; one that pools them all has no interval:
    drawing clips with replacement makes pools smaller than they are, which a Frechet distance takes for a difference.

    Args:
      metric: Which figure.
      clips: Scores of clips.
      pools: Scores of pools.
    """
    found = [_values(metric, emotion, clips, pools) for emotion in EMOTIONS]
    groups = [values for values in found if len(values)]
    if not groups:
        return None
    if metric.pooled and not _split(metric, pools):
        mean = float(np.mean(np.concatenate(groups)))
        return Interval(mean, float("nan"), float("nan"), len(groups))
    return stratified_mean(groups)


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


def _values(
    metric: Metric, emotion: str, clips: Sequence[ClipScores], pools: Sequence[PoolScore]
) -> Float[np.ndarray, " n"]:
    if metric.pooled:
        own = [one for one in pools if (one.metric, one.emotion) == (metric.name, emotion)]
        return np.array([one.value for one in own], np.float64)
    found = [one.values[metric.name] for one in clips if one.emotion == emotion and metric.name in one.values]
    return np.array(found, np.float64)


def _split(metric: Metric, pools: Sequence[PoolScore]) -> bool:
    return any(one.speaker for one in pools if one.metric == metric.name)
