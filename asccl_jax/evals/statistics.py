"""Bootstrap intervals of means, of ratios of means, and of how often one loss exceeds another.

What is resampled are units that tell nothing of each other: speakers where there are enough, else clips or pairs of
clips. Neighbouring frames of a clip say nearly the same; taken for independent they promise far too narrow an interval.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import special

__all__ = [
    "LEAST_UNITS",
    "Interval",
    "Units",
    "area_under_curve",
    "area_under_curve_difference",
    "choose_units",
    "interval_note",
    "mean",
    "mean_over_groups",
    "ordered_share",
    "ratio_of_means",
    "wins",
]

LEAST_UNITS = 6
"""Fewest units that are resampled. A bootstrap never leaves the range of its units, and the range of n values misses
their true middle with a chance of 2 in 2^n: of five, even all of it covers with 94 % only."""

_RESAMPLES = 4000
_TAIL = 0.025


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap 95 % interval.

    Attributes:
      value: The figure on the data as they are.
      low: Lower end; NaN where there are fewer than `LEAST_UNITS` units, which tell too little of how they scatter.
      high: Upper end, likewise.
      count: Values it was computed from.
      unit: What was resampled, in the singular; nothing where nothing is.
      units: How many of them there are.
      within: What these belong to and there are too few of, as "3 speakers".
    """

    value: float
    low: float
    high: float
    count: int
    unit: str = ""
    units: int = 0
    within: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def clear(self) -> bool:
        """Whether there is an interval, and it excludes zero."""
        return self.low > 0 or self.high < 0

    def text(self, digits: int) -> str:
        """Returns the figure, with its interval if there is one.

        >>> Interval(1.25, 1.0, 1.5, 12).text(1)
        '1.2 [1.0, 1.5]'
        """
        # Adding zero turns a rounded -0.0 into 0.0.
        value, low, high = (round(number, digits) + 0.0 for number in (self.value, self.low, self.high))
        return f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if self.known else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """What is resampled: each unit with all of its values.

    Attributes:
      name: What a unit is, in the singular.
      of: Number of the unit that each value belongs to.
      within: What the units belong to and there are too few of.
    """

    name: str
    of: Int[np.ndarray, " n"]
    within: str = ""

    @property
    def count(self) -> int:
        """How many units there are."""
        return int(self.of.max(initial=-1)) + 1

    def sums(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " units"]:
        """Returns the sum of each unit's values."""
        return np.bincount(self.of, values, self.count)


def choose_units(*levels: tuple[str, Sequence[Hashable]]) -> Units:
    """Returns the coarsest of some kinds of units of which there are `LEAST_UNITS`; the finest if there are of none.

    >>> clips = choose_units(("speaker", "AAAABBB"), ("clip", [1, 1, 2, 3, 4, 5, 6]))
    >>> clips.name, clips.count, clips.within
    ('clip', 6, '2 speakers')

    Args:
      *levels: What a unit is, in the singular, and for each value the one it belongs to; coarse ones first. Equal
        labels of a finer level belong to the same unit only if those of all coarser ones are equal, too.
    """
    path: list[tuple[Hashable, ...]] = [() for _ in levels[0][1]]
    coarser: list[str] = []
    for name, labels in levels:
        path = [(*above, label) for above, label in zip(path, labels, strict=True)]
        places = {label: place for place, label in enumerate(dict.fromkeys(path))}
        units = Units(name, np.array([places[label] for label in path], np.int64), " of ".join(reversed(coarser)))
        if len(places) >= LEAST_UNITS:
            break
        coarser.append(_counted(len(places), name))
    return units


def interval_note(figures: Iterable[Interval | None]) -> str:
    """Returns in a clause what the intervals of a table are over: which units, and how many.

    >>> interval_note([Interval(1.0, 0.5, 1.5, 40, "clip pair", 8, "2 speakers"), None])
    '95 % intervals over 8 clip pairs of 2 speakers'
    """
    given = [figure for figure in figures if figure is not None and figure.unit]
    shown = [figure for figure in given if figure.known]
    found: dict[str, list[Interval]] = collections.defaultdict(list)
    for figure in shown or given:
        found[figure.unit].append(figure)
    phrases = []
    for unit, own in found.items():
        counts = sorted({figure.units for figure in own})
        count = _counted(counts[-1], unit)
        within = {figure.within for figure in own if figure.within}
        phrase = count if len(counts) == 1 else f"{counts[0]} to {count}"
        phrases.append(phrase + (f" of {within.pop()}" if len(within) == 1 else ""))
    if shown:
        return f"95 % intervals over {' or '.join(phrases)}"
    return f"no intervals ({' or '.join(phrases) or 'no units'}; {LEAST_UNITS} are needed)"


def mean(values: Float[np.ndarray, " n"], units: Units) -> Interval:
    """Returns the mean of some values.

    >>> mean(np.ones(6), Units("clip", np.arange(6))).text(1)
    '1.0 [1.0, 1.0]'
    """
    draws = _draws(units.count)
    samples = (draws @ units.sums(values)) / (draws @ units.sums(np.ones(len(values))))
    return _interval(float(values.mean()), samples, len(values), units)


def mean_over_groups(values: Float[np.ndarray, " n"], groups: Sequence[Hashable], units: Units) -> Interval:
    """Returns the mean of the groups' means, as of emotions that weigh the same however many clips they have.

    Units that each lie in one group are resampled within it; where units go across groups, all of them together.

    Args:
      values: Values.
      groups: The group of each.
      units: What is resampled.
    """
    labels = {label: place for place, label in enumerate(dict.fromkeys(groups))}
    of = np.array([labels[label] for label in groups], np.int64)
    counts = np.zeros((units.count, len(labels)))
    sums = np.zeros_like(counts)
    np.add.at(counts, (units.of, of), 1)
    np.add.at(sums, (units.of, of), values)
    value = float(np.mean(sums.sum(axis=0) / counts.sum(axis=0)))
    if (np.count_nonzero(counts, axis=1) > 1).any():
        draws = _draws(units.count)
        with np.errstate(invalid="ignore"):  # a group that a resample lacks
            return _interval(value, np.nanmean((draws @ sums) / (draws @ counts), axis=1), len(values), units)
    samples, freedom = np.zeros(_RESAMPLES), 0
    for group in range(len(labels)):
        inside = counts[:, group] > 0
        draws = _draws(int(inside.sum()), group)
        samples += (draws @ sums[inside, group]) / (draws @ counts[inside, group]) / len(labels)
        freedom += int(inside.sum()) - 1
    return _interval(value, samples, len(values), units, freedom=freedom)


def ratio_of_means(numerator: Float[np.ndarray, " n"], denominator: Float[np.ndarray, " n"], units: Units) -> Interval:
    """Returns mean(numerator) / mean(denominator); entry i of both belongs to the same comparison."""
    draws = _draws(units.count)
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = (draws @ units.sums(numerator)) / (draws @ units.sums(denominator))
        value = float(np.divide(numerator.mean(), denominator.mean()))
    return _interval(value, samples, len(numerator), units)


def wins(lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns 1 for each group whose `higher` loss exceeds its `lower` one, 0 where not, a half for a tie."""
    return (higher > lower) + 0.5 * (higher == lower)


def ordered_share(lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"], units: Units) -> Interval:
    """Returns the paired accuracy: the share of groups in which `higher` exceeds `lower`, ties counted half."""
    return mean(wins(lower, higher), units)


def area_under_curve(lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"], units: Units) -> Interval:
    """Returns the area under the ROC curve: P(higher_i > lower_j) over all groups i and j, ties counted half.

    Unlike the paired accuracy it asks for one threshold that serves all images.
    """
    value, samples = _area_samples(lower, higher, units)
    return _interval(value, samples, len(lower), units)


def area_under_curve_difference(
    first: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    second: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    units: Units,
) -> Interval:
    """Returns the area of `first` minus that of `second`, both (lower, higher) on the same groups."""
    first_value, first_samples = _area_samples(*first, units)
    second_value, second_samples = _area_samples(*second, units)
    return _interval(first_value - second_value, first_samples - second_samples, len(first[0]), units)


def _area_samples(
    lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " n"], units: Units
) -> tuple[float, Float[np.ndarray, " resamples"]]:
    exceeds = (higher[:, None] > lower[None, :]) + 0.5 * (higher[:, None] == lower[None, :])
    order = np.argsort(units.of, kind="stable")
    first = np.searchsorted(units.of[order], np.arange(units.count))
    within = np.add.reduceat(np.add.reduceat(exceeds[order][:, order], first, axis=0), first, axis=1)
    draws = _draws(units.count)
    drawn = draws @ units.sums(np.ones(len(lower)))
    return float(exceeds.mean()), np.sum((draws @ within) * draws, axis=1) / drawn**2


def _interval(
    value: float, samples: Float[np.ndarray, " resamples"], count: int, units: Units, *, freedom: int | None = None
) -> Interval:
    freedom = units.count - 1 if freedom is None else freedom
    finite = samples[np.isfinite(samples)]
    low, high = math.nan, math.nan
    if freedom >= LEAST_UNITS - 1 and len(finite):
        # Resamples scatter as if the spread of the units were known; Student's quantile makes up for that.
        tail = 100 * float(special.ndtr(special.stdtrit(freedom, _TAIL)))
        low, high = (float(end) for end in np.percentile(finite, (tail, 100 - tail)))
    return Interval(value, low, high, count, units.name, units.count, units.within)


@functools.lru_cache(maxsize=16)
def _draws(count: int, stream: int = 0) -> Float[np.ndarray, "resamples n"]:
    """How often each unit is drawn in each resample; the same for every figure, so that rows of a table compare.

    One less is drawn than there are: the resamples then scatter as means of that many do, without the (n - 1) / n by
    which a bootstrap of n is too narrow. Draws of another stream are independent.
    """
    drawn = np.random.default_rng(stream).multinomial(max(1, count - 1), np.full(count, 1 / count), size=_RESAMPLES)
    return drawn.astype(np.float64)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
