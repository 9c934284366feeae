import numpy as np
import pytest

from asccl_jax.evals import statistics
from asccl_jax.evals.statistics import Interval, Units, choose_units, interval_note, mean_over_groups

CLIPS, FRAMES = 12, 25
SEEDS = 300
COVERED = (0.91, 0.98)
"""Share of 300 data sets: a nominal 95 % is found within 92.5 and 97.5; twelve clips alone cost up to 1.5 %."""


def single(count: int) -> Units:
    return Units("clip", np.arange(count))


def of_clips() -> Units:
    return Units("clip", np.repeat(np.arange(CLIPS), FRAMES))


def similar_within_clips(seed: int) -> np.ndarray:
    """Values of mean 0, four fifths of whose variance is the clip's."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=CLIPS), FRAMES) + 0.5 * rng.normal(size=CLIPS * FRAMES)


def covered(intervals: list[Interval], truth: float) -> float:
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


@pytest.fixture(scope="module")
def data_sets() -> list[np.ndarray]:
    return [similar_within_clips(seed) for seed in range(SEEDS)]


def test_intervals_of_frames_alike_within_clips_cover_as_often_as_they_say(data_sets):
    share = covered([statistics.mean(values, of_clips()) for values in data_sets], 0)
    assert COVERED[0] < share < COVERED[1]
    # What the frames promise by themselves.
    naive = covered([statistics.mean(values, single(len(values))) for values in data_sets[:20]], 0)
    assert naive < 0.7


def test_intervals_of_ratios_and_groups_cover_as_often_as_they_say(data_sets):
    ratios, grouped = [], []
    for seed, values in enumerate(data_sets):
        below = np.repeat(np.exp(0.3 * np.random.default_rng(1000 + seed).normal(size=CLIPS)), FRAMES)
        ratios.append(statistics.ratio_of_means(below * (1.5 + 0.3 * values), below, of_clips()))
        grouped.append(mean_over_groups(values, (np.arange(len(values)) % 2).tolist(), of_clips()))
    assert COVERED[0] < covered(ratios, 1.5) < COVERED[1]
    assert COVERED[0] < covered(grouped, 0) < COVERED[1]


def test_areas_of_frames_alike_within_clips_scatter_as_their_intervals_say(data_sets):
    intervals = [
        statistics.area_under_curve(lower, higher, of_clips())
        for lower, higher in zip(data_sets[:60:2], data_sets[1:60:2], strict=True)
    ]
    spread = np.std([interval.value for interval in intervals], ddof=1)
    width = np.mean([interval.high - interval.low for interval in intervals])
    # Student's quantile of eleven degrees of freedom; a deviation of 30 values is known to 13 %.
    assert width == pytest.approx(2 * 2.2 * spread, rel=0.35)


def test_the_coarsest_units_are_taken_of_which_there_are_six():
    clips = [number // 4 for number in range(48)]
    few, many = [clip // 4 for clip in clips], [clip // 2 for clip in clips]
    assert (choose_units(("speaker", many), ("clip", clips)).name, len(set(many))) == ("speaker", 6)
    found = choose_units(("speaker", few), ("clip", clips))
    assert (found.name, found.count, found.within) == ("clip", 12, "3 speakers")
    # Clips of one name of two speakers are two.
    assert choose_units(("speaker", "AAAAAABBBBBB"), ("clip", 2 * [1, 2, 3, 4, 5, 6])).count == 12


def test_few_units_give_no_interval_and_the_note_says_so():
    few = choose_units(("speaker", "ABCAB"), ("clip", range(5)))
    figure = statistics.mean(np.arange(5.0), few)
    assert not figure.known and not figure.clear
    assert figure.text(1) == "2.0"
    assert interval_note([figure]) == "no intervals (5 clips of 3 speakers; 6 are needed)"
    seven = statistics.mean(np.arange(7.0), single(7))
    assert interval_note([figure, None, seven]) == "95 % intervals over 7 clips"


def test_ratio_of_means_is_not_the_mean_of_ratios():
    result = statistics.ratio_of_means(np.array([2.0, 6.0]), np.array([1.0, 1.0 + 2.0]), single(2))
    assert result.value == 2.0
    assert statistics.ratio_of_means(np.array([1.0, 6.0]), np.array([1.0, 2.0]), single(2)).value == pytest.approx(
        7 / 3
    )


def test_a_ratio_constant_over_groups_has_no_spread():
    numbers = np.array([1.0, 2.0, 5.0, 3.0, 8.0, 2.0])
    result = statistics.ratio_of_means(1.5 * numbers, numbers, single(6))
    # Rounding of float64 alone.
    assert (result.low, result.high) == pytest.approx((1.5, 1.5), rel=1e-12)


def test_area_under_curve_counts_all_pairs_and_halves_ties():
    lower, higher = np.array([1.0, 2.0]), np.array([2.0, 3.0])
    # 2 > 1, 2 = 2, 3 > 1, 3 > 2.
    assert statistics.area_under_curve(lower, higher, single(2)).value == 3.5 / 4


def test_paired_share_compares_within_groups_only():
    lower, higher = np.array([0.0, 10.0, 5.0]), np.array([1.0, 11.0, 5.0])
    assert statistics.ordered_share(lower, higher, single(3)).value == pytest.approx(2.5 / 3)
    assert statistics.area_under_curve(lower, higher, single(3)).value < 1


def test_interval_of_a_mean_agrees_with_normal_theory():
    values = np.random.default_rng(3).normal(size=400)
    result = statistics.mean(values, single(400))
    half_width = 1.96 * values.std() / np.sqrt(400)
    # Percentiles of 4,000 resamples scatter by a few percent.
    assert result.value - result.low == pytest.approx(half_width, rel=0.12)
    assert result.high - result.value == pytest.approx(half_width, rel=0.12)
    assert (result.count, result.units) == (400, 400)


def test_units_within_a_group_are_resampled_there_and_a_group_of_one_adds_nothing():
    rng = np.random.default_rng(1)
    few, many = (
        mean_over_groups(rng.normal(size=2 * count), count * "a" + count * "b", single(2 * count))
        for count in (10, 500)
    )
    # The mean of two groups of n has a deviation of 1 / sqrt(2 n): 1.96 of those either way.
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.1)
    assert few.high - few.low > 4 * (many.high - many.low)
    lonely = mean_over_groups(np.r_[1.0, np.full(6, 3.0)], "abbbbbb", single(7))
    assert (lonely.value, lonely.low, lonely.high) == (2, 2, 2)


def test_differences_are_resampled_together():
    rng = np.random.default_rng(4)
    losses = rng.normal(size=50), rng.normal(size=50) + 0.3
    same = statistics.area_under_curve_difference(losses, losses, single(50))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = statistics.area_under_curve_difference((losses[0], losses[1] + 5), losses, single(50))
    assert better.low > 0


def test_intervals_repeat_exactly():
    values = np.arange(7.0)
    assert statistics.mean(values, single(7)) == statistics.mean(values, single(7))
