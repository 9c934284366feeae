"""Distances between maps of generated and of real images: their weights, and whose gradient is cut."""

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax.losses.perceptual import feature_matching, perceptual_distance, relative_distance

RANDOM = np.random.default_rng(0)


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
