import numpy as np
import pytest

from asccl_jax.evals import bootstrap


def test_ratio_of_means_is_not_the_mean_of_ratios():
    result = bootstrap.ratio_of_means(np.array([2.0, 6.0]), np.array([1.0, 1.0 + 2.0]))
    assert result.value == 2.0
    assert bootstrap.ratio_of_means(np.array([1.0, 6.0]), np.array([1.0, 2.0])).value == pytest.approx(7 / 3)


def test_a_ratio_constant_over_groups_has_no_spread():
    numbers = np.array([1.0, 2.0, 5.0])
    result = bootstrap.ratio_of_means(1.5 * numbers, numbers)
    # Rounding of float64 alone.
    assert (result.low, result.high) == pytest.approx((1.5, 1.5), rel=1e-12)


def test_area_under_curve_counts_all_pairs_and_halves_ties():
    lower, higher = np.array([1.0, 2.0]), np.array([2.0, 3.0])
    # 2 > 1, 2 = 2, 3 > 1, 3 > 2.
    assert bootstrap.area_under_curve(lower, higher).value == 3.5 / 4


def test_paired_share_compares_within_groups_only():
    lower, higher = np.array([0.0, 10.0, 5.0]), np.array([1.0, 11.0, 5.0])
    assert bootstrap.ordered_share(lower, higher).value == pytest.approx(2.5 / 3)
    assert bootstrap.area_under_curve(lower, higher).value < 1


def test_interval_of_a_mean_agrees_with_normal_theory():
    values = np.random.default_rng(3).normal(size=400)
    result = bootstrap.mean(values)
    half_width = 1.96 * values.std() / np.sqrt(400)
    # Percentiles of 2,000 resamples scatter by a few percent.
    assert result.value - result.low == pytest.approx(half_width, rel=0.12)
    assert result.high - result.value == pytest.approx(half_width, rel=0.12)
    assert result.count == 400


def test_differences_are_resampled_together():
    rng = np.random.default_rng(4)
    losses = rng.normal(size=50), rng.normal(size=50) + 0.3
    same = bootstrap.area_under_curve_difference(losses, losses)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = bootstrap.area_under_curve_difference((losses[0], losses[1] + 5), losses)
    assert better.low > 0


def test_intervals_repeat_exactly():
    values = np.arange(7.0)
    assert bootstrap.mean(values) == bootstrap.mean(values)
