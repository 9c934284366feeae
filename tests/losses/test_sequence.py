"""Losses along time: the correlation's value, its invariances, and windows in which nothing moves."""

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax.losses.adversarial import least_squares
from asccl_jax.losses.sequence import absolute_error, mouth_correlation, pearson


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_correlation_is_numpys():
    first, second = drawn(5, 10), drawn(5, 10, seed=1)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(pearson(first, second), expected, atol=1e-6)


def test_correlation_keeps_under_scaling_down_to_a_jaw_that_hardly_moves():
    first, second = drawn(5, 10), drawn(5, 10, seed=1)
    # A jaw that opens by a ten-thousandth of a radian: far above the limit, far below real speech.
    np.testing.assert_allclose(pearson(1e-4 * first, 3 * second - 2), pearson(first, second), atol=1e-5)


def test_windows_without_motion_count_nothing_and_send_no_gradient():
    moving = drawn(4, 10)
    first = moving.at[1].set(0.1).at[3].set(0.3)
    second = drawn(4, 10, seed=1).at[2].set(-0.2).at[3].set(0.4)
    values, pull = jax.vjp(pearson, first, second)
    assert float(values[0]) != 0
    np.testing.assert_array_equal(values[1:], 0.0)
    for gradient in pull(jnp.ones(4)):
        assert bool(jnp.isfinite(gradient).all())
        np.testing.assert_array_equal(gradient[1:], 0.0)
        assert float(jnp.abs(gradient[0]).max()) > 0


def test_mouth_correlation_is_that_of_column_zero_both_ways():
    windows = drawn(3, 2, 10, 4)
    source, generated, restored = windows
    expected = pearson(source[..., 0], generated[..., 0]) + pearson(generated[..., 0], restored[..., 0])
    np.testing.assert_array_equal(mouth_correlation(source, generated, restored), expected)
    others = windows.at[..., 1:].add(5.0)
    np.testing.assert_array_equal(mouth_correlation(*others), expected)


def test_absolute_error_is_each_windows_own_and_symmetric():
    first, second = drawn(3, 4, 2), drawn(3, 4, 2, seed=1)
    expected = np.abs(np.asarray(first) - np.asarray(second)).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(absolute_error(first, second), expected, rtol=1e-6)
    np.testing.assert_array_equal(absolute_error(second, first), absolute_error(first, second))


def test_least_squares_pulls_scores_to_the_target():
    scores = drawn(6)
    gradient = jax.grad(least_squares)(scores, 1.0)
    np.testing.assert_allclose(gradient, 2 * (scores - 1.0) / 6, rtol=1e-6)
