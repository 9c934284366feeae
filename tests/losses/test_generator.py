"""Scores of several scales, by both kinds of adversarial loss, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.losses.generator import (
    absolute_error,
    crop_regions,
    feature_matching,
    judged_fake,
    judged_real,
    least_squares,
    mean_point,
    mouth_correlation,
    passed_as_real,
    pearson,
    perceptual_distance,
    relative_distance,
)

RANDOM = np.random.default_rng(0)
MAPS = [
    [RANDOM.normal(size=shape).astype(np.float32) for shape in ((2, 9, 9, 4), (2, 5, 5, 1))],
    [RANDOM.normal(size=shape).astype(np.float32) for shape in ((2, 5, 5, 4), (2, 3, 3, 1))],
]


@pytest.mark.parametrize(
    ("loss", "mode", "of_scores"),
    [
        (judged_real, "ls", lambda p: (p - 1) ** 2),
        (judged_fake, "ls", lambda p: p**2),
        (passed_as_real, "ls", lambda p: (p - 1) ** 2),
        (judged_real, "hinge", lambda p: np.maximum(0, 1 - p)),
        (judged_fake, "hinge", lambda p: np.maximum(0, 1 + p)),
        (passed_as_real, "hinge", lambda p: -p),
    ],
)
def test_the_last_maps_alone_count_each_scale_by_its_own_mean(loss, mode, of_scores):
    maps = jax.tree.map(jnp.asarray, MAPS)
    expected = sum(of_scores(layers[-1].astype(np.float64)).mean() for layers in MAPS)
    np.testing.assert_allclose(loss(maps, mode=mode), expected, rtol=1e-6)
    gradients = jax.grad(lambda x: loss(x, mode=mode))(maps)
    for layers in gradients:
        assert not layers[0].any()
        assert layers[-1].any()


def drawn(*shapes):
    return [jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in shapes]


SHAPES = ((2, 8, 8, 3), (2, 4, 4, 5), (2, 2, 2, 1))


def test_feature_matching_leaves_the_scores_out_and_averages_scales():
    fake, real = ([drawn(*SHAPES), drawn(*SHAPES)] for _ in range(2))
    distances = [
        np.abs(np.asarray(f, np.float64) - r).mean()
        for pair in zip(fake, real, strict=True)
        for f, r in list(zip(*pair, strict=True))[:-1]
    ]
    # Two layers but the last, each weighing 4 / 2; two scales.
    np.testing.assert_allclose(feature_matching(fake, real), 2 * sum(distances) / 2, rtol=1e-6)
    to_fake, to_real = jax.grad(feature_matching, argnums=(0, 1))(fake, real)
    assert all(layer.any() for layers in to_fake for layer in layers[:-1])
    assert not any(layers[-1].any() for layers in to_fake)
    assert not any(leaf.any() for leaf in jax.tree.leaves(to_real))


def test_perceptual_distance_pulls_the_generated_side_only():
    fake, real = drawn(*SHAPES), drawn(*SHAPES)
    weights = (0.5, 2.0, 0.25)
    expected = sum(w * np.abs(np.asarray(f) - r).mean() for f, r, w in zip(fake, real, weights, strict=True))
    np.testing.assert_allclose(perceptual_distance(fake, real, weights), expected, rtol=1e-6)
    gradients = jax.grad(perceptual_distance, argnums=(0, 1))(fake, real, weights)
    assert all(leaf.any() for leaf in gradients[0])
    assert not any(leaf.any() for leaf in gradients[1])


def test_relative_distance_is_the_same_in_any_unit():
    fake, real = drawn(*SHAPES), drawn(*SHAPES)
    weights = (0.5, 2.0, 0.25)
    scaled = relative_distance(
        [s * x for s, x in zip((100.0, 1.0, 0.01), fake, strict=True)],
        [s * x for s, x in zip((100.0, 1.0, 0.01), real, strict=True)],
        weights,
    )
    # The term that guards a dark map, 1e-6, is 1e-4 of the smallest one.
    np.testing.assert_allclose(scaled, relative_distance(fake, real, weights), rtol=2e-4)
    gradients = jax.grad(relative_distance, argnums=1)(fake, real, weights)
    assert not any(leaf.any() for leaf in gradients)


SIZE, SIDE = 20, 8
CENTRES = np.array([[10, 10], [0, 19], [19, 0], [-7, 4], [4, 40], [16, 17]], np.int32)


def test_regions_are_the_published_slices_round_clamped_centres():
    images = np.random.default_rng(0).normal(size=(len(CENTRES), SIZE, SIZE, 3)).astype(np.float32)
    found = jax.jit(crop_regions, static_argnums=2)(jnp.asarray(images), jnp.asarray(CENTRES), SIDE)
    for image, centre, crop in zip(images, CENTRES, found, strict=True):
        x, y = np.clip(centre, SIDE // 2, SIZE - SIDE // 2)
        np.testing.assert_array_equal(crop, image[y - 4 : y + 4, x - 4 : x + 4])


def test_gradients_go_to_the_pixels_of_the_region_only():
    images = jnp.ones((len(CENTRES), SIZE, SIZE, 1))
    gradient = jax.grad(lambda x: jnp.sum(crop_regions(x, jnp.asarray(CENTRES), SIDE)))(images)
    np.testing.assert_array_equal(jnp.sum(gradient, axis=(1, 2, 3)), SIDE**2)
    np.testing.assert_array_equal(gradient[1, 12:, :8], 1.0)


@pytest.mark.parametrize("side", [7, 22, 0])
def test_regions_that_do_not_fit_are_refused(side):
    with pytest.raises(InputError, match=f"regions of {side} pixels in images of 20 x 20"):
        crop_regions(jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros((1, 2), jnp.int32), side)


def test_the_middle_of_discs_lies_between_them():
    image = np.zeros((2, 20, 30, 3), np.float32)
    image[0, 4:7, 2:5], image[0, 4:7, 12:15] = 1.0, 1.0
    assert mean_point(jnp.asarray(image)).tolist() == [[8, 5], [15, 10]]


def drawn_sequence(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_correlation_is_numpys():
    first, second = drawn_sequence(5, 10), drawn_sequence(5, 10, seed=1)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(pearson(first, second), expected, atol=1e-6)


def test_correlation_keeps_under_scaling_down_to_a_jaw_that_hardly_moves():
    first, second = drawn_sequence(5, 10), drawn_sequence(5, 10, seed=1)
    # A jaw that opens by a ten-thousandth of a radian: far above the limit, far below real speech.
    np.testing.assert_allclose(pearson(1e-4 * first, 3 * second - 2), pearson(first, second), atol=1e-5)


def test_windows_without_motion_count_nothing_and_send_no_gradient():
    moving = drawn_sequence(4, 10)
    first = moving.at[1].set(0.1).at[3].set(0.3)
    second = drawn_sequence(4, 10, seed=1).at[2].set(-0.2).at[3].set(0.4)
    values, pull = jax.vjp(pearson, first, second)
    assert float(values[0]) != 0
    np.testing.assert_array_equal(values[1:], 0.0)
    for gradient in pull(jnp.ones(4)):
        assert bool(jnp.isfinite(gradient).all())
        np.testing.assert_array_equal(gradient[1:], 0.0)
        assert float(jnp.abs(gradient[0]).max()) > 0


def test_mouth_correlation_is_that_of_column_zero_both_ways():
    windows = drawn_sequence(3, 2, 10, 4)
    source, generated, restored = windows
    expected = pearson(source[..., 0], generated[..., 0]) + pearson(generated[..., 0], restored[..., 0])
    np.testing.assert_array_equal(mouth_correlation(source, generated, restored), expected)
    others = windows.at[..., 1:].add(5.0)
    np.testing.assert_array_equal(mouth_correlation(*others), expected)


def test_absolute_error_is_each_windows_own_and_symmetric():
    first, second = drawn_sequence(3, 4, 2), drawn_sequence(3, 4, 2, seed=1)
    expected = np.abs(np.asarray(first) - np.asarray(second)).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(absolute_error(first, second), expected, rtol=1e-6)
    np.testing.assert_array_equal(absolute_error(second, first), absolute_error(first, second))


def test_least_squares_pulls_scores_to_the_target():
    scores = drawn_sequence(6)
    gradient = jax.grad(least_squares)(scores, 1.0)
    np.testing.assert_allclose(gradient, 2 * (scores - 1.0) / 6, rtol=1e-6)
