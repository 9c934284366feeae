"""Bootstrap intervals over comparison groups: means, ratios of means, and how often one loss exceeds another.

All of them resample whole groups (a query with its keys), so that losses of the same query stay together.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

__all__ = [
    "Interval",
    "area_under_curve",
    "area_under_curve_difference",
    "mean",
    "ordered_share",
    "ratio_of_means",
    "wins",
]

RESAMPLES = 2000
_CONFIDENCE_PERCENT = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap 95 % interval.

    Attributes:
      value: The figure on the data as they are.
      low: Lower end.
      high: Upper end.
      count: Groups it was computed from.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean(values: Float[np.ndarray, " n"]) -> Interval:
    """Returns the mean of one value a group.

    >>> mean(np.array([1.0, 1.0]))
    Interval(value=1.0, low=1.0, high=1.0, count=2)
    """
    return _interval(float(values.mean()), _resampling_weights(len(values)) @ values, len(values))


def ratio_of_means(numerator: Float[np.ndarray, " n"], denominator: Float[np.ndarray, " n"]) -> Interval:
    """Returns mean(numerator) / mean(denominator); entry i of both belongs to group i."""
    weights = _resampling_weights(len(numerator))
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = (weights @ numerator) / (weights @ denominator)
        value = float(np.divide(numerator.mean(), denominator.mean()))
    return _interval(value, samples, len(numerator))


def wins(lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns 1 for each group whose `higher` loss exceeds its `lower` one, 0 where not, a half for a tie."""
    return (higher > lower) + 0.5 * (higher == lower)


def ordered_share(lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"]) -> Interval:
    """Returns the paired accuracy: the share of groups in which `higher` exceeds `lower`, ties counted half."""
    return mean(wins(lower, higher))


def area_under_curve(lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"]) -> Interval:
    """Returns the area under the ROC curve: P(higher_i > lower_j) over all groups i and j, ties counted half.

    Unlike the paired accuracy it asks for one threshold that serves all images.
    """
    value, samples = _area_samples(lower, higher)
    return _interval(value, samples, len(lower))


def area_under_curve_difference(
    first: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    second: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
) -> Interval:
    """Returns the area of `first` minus that of `second`, both (lower, higher) on the same groups."""
    first_value, first_samples = _area_samples(*first)
    second_value, second_samples = _area_samples(*second)
    return _interval(first_value - second_value, first_samples - second_samples, len(first[0]))


def _area_samples(
    lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " resamples"]]:
    exceeds = (higher[:, None] > lower[None, :]) + 0.5 * (higher[:, None] == lower[None, :])
    weights = _resampling_weights(len(lower))
    return float(exceeds.mean()), np.sum((weights @ exceeds) * weights, axis=1)


def _interval(value: float, samples: Float[np.ndarray, " resamples"], count: int) -> Interval:
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return Interval(value, float("nan"), float("nan"), count)
    low, high = np.percentile(finite, _CONFIDENCE_PERCENT)
    return Interval(value, float(low), float(high), count)


@functools.lru_cache(maxsize=8)
def _resampling_weights(count: int) -> Float[np.ndarray, "resamples n"]:
    """Share of each group in each resample; the same for every figure, so that rows of a table stay comparable."""
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1.0 / count), size=RESAMPLES)
    return draws / count
