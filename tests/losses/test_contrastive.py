"""The contrastive loss against hand-made cases, naive NumPy and the properties that tell paper from released code."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.losses.contrastive import (
    CorrelationParts,
    correlation_loss,
    cosines_along_pairs,
    disparity_weights,
    location_scores,
    neighbour_disparities,
    patch_nce,
    stage_loss,
)
from asccl_jax.norms import unit_vectors
from asccl_jax.sampling import NEIGHBOUR_OFFSETS, map_sizes, sample_locations
from asccl_jax.settings import MetricSettings

PAPER = MetricSettings(stage_widths=(4, 4, 8, 8), centre_counts=(3, 3, 2, 2), image_size=64)
RELEASED = MetricSettings.from_compat("released", stage_widths=(4, 4, 8, 8), centre_counts=(3, 3, 2, 2), image_size=64)

traced_loss = jax.jit(correlation_loss, static_argnums=(2, 4))
traced_scores = jax.jit(location_scores, static_argnums=(2, 4))


def random_units(seed, shape=(2, 16, 6)):
    return unit_vectors(jax.random.normal(jax.random.key(seed), shape))


def test_parts_can_be_fetched_to_the_host_and_mapped_to_other_things():
    names = [field.name for field in dataclasses.fields(CorrelationParts)]
    parts = CorrelationParts(**{name: jnp.arange(4.0) for name in names})
    fetched = jax.device_get(parts)
    assert all(isinstance(getattr(fetched, name), np.ndarray) for name in names)
    assert jax.tree.map(np.shape, parts).top1 == (4,)
    assert jax.tree.map(lambda *leaves: np.stack(leaves), fetched, fetched).top1.shape == (2, 4)


def random_maps(seed, scale=1.0):
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(
        scale * jax.random.normal(key, (2, size, size, width))
        for key, size, width in zip(keys, map_sizes(64), PAPER.stage_widths, strict=True)
    )


def locations(border="inside"):
    return sample_locations(jax.random.key(7), map_sizes(64), PAPER.centre_counts, border=border)


def embed(level, disparities):
    """A head without weights."""
    return unit_vectors(disparities)


def naive_nce(query, key, temperature, mask_same_centre=False):
    query, key = np.asarray(query, np.float64), np.asarray(key, np.float64)
    batch, pairs, _ = query.shape
    losses = np.empty((batch, pairs))
    for b in range(batch):
        for p in range(pairs):
            terms = []
            for j in range(pairs):
                if mask_same_centre and j != p and j // 8 == p // 8:
                    continue
                terms.append(math.exp(query[b, p] @ key[b, j] / temperature))
            losses[b, p] = -math.log(math.exp(query[b, p] @ key[b, p] / temperature) / sum(terms))
    return losses


def naive_weights(disparities):
    t = 1 / (1 + np.exp(-np.abs(np.asarray(disparities, np.float64))))
    return np.where(t > 0.8, 2 * t**2, 1.0)


def test_disparities_follow_the_pair_index():
    features = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    centres = np.array([[1, 2], [4, 5], [3, 3]])
    found = neighbour_disparities(features, jnp.asarray(centres))
    assert found.shape == (2, 24, 3)
    for s, (row, column) in enumerate(centres):
        for o, (down, right) in enumerate(NEIGHBOUR_OFFSETS):
            expected = features[:, row, column] - features[:, row + down, column + right]
            np.testing.assert_array_equal(found[:, 8 * s + o], expected)


def test_neighbours_of_the_first_cell_wrap_to_the_far_edge():
    features = jnp.arange(16.0).reshape(1, 4, 4, 1)
    found = neighbour_disparities(features, jnp.array([[0, 0]]))[0, :, 0]
    # Rows -1 and columns -1 are row and column 3.
    np.testing.assert_array_equal(found, [-15.0, -12.0, -13.0, -3.0, -1.0, -7.0, -4.0, -5.0])


@pytest.mark.parametrize("masked", [False, True])
def test_patch_nce_equals_the_naive_sum(masked):
    query, key = random_units(0), random_units(1)
    found = patch_nce(query, key, temperature=0.07, mask_same_centre=masked)
    # Float32 cosines of 1e-7, divided by the temperature.
    np.testing.assert_allclose(found, naive_nce(query, key, 0.07, masked), rtol=1e-5, atol=1e-5)


def test_patch_nce_of_a_case_made_by_hand():
    query = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    key = jnp.array([[[1.0, 0.0], [1.0, 0.0]]])
    # First query: both keys alike, ln 2. Second: both at a right angle, ln 2 as well.
    np.testing.assert_allclose(patch_nce(query, key, temperature=0.07), [[math.log(2)] * 2], rtol=1e-6)
    # Keys that match perfectly among one negative at a right angle: ln(1 + exp(-1 / tau)).
    exact = math.log1p(math.exp(-1 / 0.5))
    np.testing.assert_allclose(patch_nce(query, query, temperature=0.5), [[exact] * 2], rtol=1e-6)


@pytest.mark.parametrize("pairs", [32, 64, 128, 256])
def test_chance_level_is_the_logarithm_of_the_number_of_pairs(pairs):
    same = jnp.ones((1, pairs, 4)) / 2
    np.testing.assert_allclose(patch_nce(same, same, temperature=0.07), math.log(pairs), rtol=1e-6)


def test_masking_leaves_only_negatives_of_other_centres():
    same = jnp.ones((1, 32, 4)) / 2
    masked = patch_nce(same, same, temperature=0.07, mask_same_centre=True)
    np.testing.assert_allclose(masked, math.log(32 - 7), rtol=1e-6)
    single = patch_nce(same[:, :8], same[:, :8], temperature=0.07, mask_same_centre=True)
    np.testing.assert_allclose(single, 0.0, atol=1e-6)


def test_masked_negatives_have_finite_gradients():
    def scalar(query):
        return jnp.sum(patch_nce(query, random_units(1), temperature=0.07, mask_same_centre=True))

    assert np.isfinite(jax.grad(scalar)(random_units(0))).all()


def test_no_gradient_reaches_the_key():
    def scalar(query, key):
        return jnp.sum(patch_nce(query, key, temperature=0.07))

    query_gradient, key_gradient = jax.grad(scalar, argnums=(0, 1))(random_units(0), random_units(1))
    assert float(jnp.abs(query_gradient).max()) > 0.1
    np.testing.assert_array_equal(key_gradient, jnp.zeros_like(key_gradient))


def test_loss_does_not_depend_on_the_order_of_pairs():
    query, key = random_units(0), random_units(1)
    order = jax.random.permutation(jax.random.key(2), 16)
    shuffled = patch_nce(query[:, order], key[:, order], temperature=0.07)
    np.testing.assert_allclose(shuffled, patch_nce(query, key, temperature=0.07)[:, order], rtol=1e-5, atol=1e-6)


def test_weights_jump_at_the_logarithm_of_four():
    # Far enough from ln 4 = 1.3863 that float32 does not decide, either sign.
    disparities = jnp.array([[[0.0, 1.386, -1.386, 1.3866, -1.3866, 100.0]]])
    found = disparity_weights(disparities)
    np.testing.assert_allclose(found, [[[1.0, 1.0, 1.0, 1.28, 1.28, 2.0]]], rtol=1e-3)
    np.testing.assert_array_equal(found[0, 0, :3], 1.0)
    np.testing.assert_allclose(found, naive_weights(disparities), rtol=1e-5)


def test_weight_reductions():
    disparities = 2.0 * jax.random.normal(jax.random.key(0), (2, 5, 8))
    mean = disparity_weights(disparities, reduction="mean")
    np.testing.assert_allclose(mean, naive_weights(disparities).mean(-1), rtol=1e-5)
    root_mean_square = np.sqrt(np.square(np.asarray(disparities, np.float64)).mean(-1))
    assert (root_mean_square > math.log(4)).any()
    assert (root_mean_square < math.log(4)).any()
    np.testing.assert_allclose(
        disparity_weights(disparities, reduction="norm"), naive_weights(root_mean_square), rtol=1e-5
    )


@pytest.mark.parametrize("reduction", ["channel", "mean", "norm"])
def test_weights_of_zero_disparities_have_finite_gradients(reduction):
    gradient = jax.grad(lambda d: jnp.sum(disparity_weights(d, reduction=reduction)))(jnp.zeros((1, 2, 3)))
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_forms_of_the_weighted_loss():
    nce = jnp.array([[1.0, 3.0]])
    disparities = jnp.array([[[0.0, 100.0], [0.0, 0.0]]])
    # Mean weights of the two locations: 1.5 and 1.
    expected = {"per_location": (1.5 + 3.0) / 2, "global": 2.0 * 1.25, "none": 2.0}
    for weighting, value in expected.items():
        loss, weight = stage_loss(nce, disparities, dataclasses.replace(PAPER, weighting=weighting))
        np.testing.assert_allclose(loss, value, rtol=1e-6)
        np.testing.assert_allclose(weight, 1.25, rtol=1e-6)


@pytest.mark.parametrize("weighting", ["per_location", "global"])
def test_gradient_through_the_weights_flows_only_when_asked(weighting):
    def gradient(flow):
        settings = dataclasses.replace(PAPER, weighting=weighting, weight_gradient=flow)
        return jax.grad(lambda d: stage_loss(jnp.ones((1, 4)), d, settings)[0])(jnp.full((1, 4, 3), 2.0))

    np.testing.assert_array_equal(gradient("stopped"), np.zeros((1, 4, 3)))
    # d/dd of 2 sigmoid(d)^2 is 4 t^2 (1 - t), averaged over 4 locations of 3 channels.
    t = 1 / (1 + math.exp(-2.0))
    np.testing.assert_allclose(gradient("flows"), np.full((1, 4, 3), 4 * t**2 * (1 - t) / 12), rtol=1e-5)


@pytest.mark.parametrize("settings", [PAPER, RELEASED], ids=["paper", "released"])
def test_correlation_loss_equals_the_naive_version(settings):
    query, key, centres = random_maps(0), random_maps(1), locations(settings.border)
    found, parts = traced_loss(query, key, embed, centres, settings)
    total = 0.0
    for level in range(4):
        disparities = np.asarray(neighbour_disparities(query[level], centres[level]))
        weights = naive_weights(disparities)
        nce = naive_nce(
            embed(level, jnp.asarray(disparities)),
            embed(level, neighbour_disparities(key[level], centres[level])),
            0.07,
        )
        loss = (weights.mean(-1) * nce).mean() if settings is PAPER else nce.mean() * weights.mean()
        np.testing.assert_allclose(parts.stage_losses[level], loss, rtol=1e-5)
        np.testing.assert_allclose(parts.stage_nce[level], nce.mean(), rtol=1e-5)
        np.testing.assert_allclose(parts.mean_weight[level], weights.mean(), rtol=1e-5)
        total += loss
    np.testing.assert_allclose(found, 0.3 * total, rtol=1e-5)


def test_gradient_reaches_the_query_maps_and_not_the_key_maps():
    @jax.jit
    def scalar(query, key):
        return correlation_loss(query, key, embed, locations("wrap"), RELEASED)[0]

    query_gradient, key_gradient = jax.grad(scalar, argnums=(0, 1))(random_maps(0), random_maps(1))
    assert all(float(jnp.abs(x).max()) > 0 for x in query_gradient)
    assert all(float(jnp.abs(x).max()) == 0 for x in key_gradient)


def test_no_gradient_reaches_the_heads_through_the_key():
    def scalar(scale, query_scale):
        calls = iter([query_scale, scale] * 4)

        def scaled(level, disparities):
            return embed(level, disparities) * next(calls)

        return correlation_loss(random_maps(0), random_maps(1), scaled, locations(), PAPER)[0]

    key_gradient, query_gradient = jax.jit(jax.grad(scalar, argnums=(0, 1)))(1.0, 1.0)
    assert float(key_gradient) == 0
    assert float(query_gradient) != 0


def test_identical_disparities_have_finite_gradients():
    # A constant image: every disparity and so every embedding is the zero vector.
    flat = tuple(jnp.ones_like(x) for x in random_maps(0))
    gradient = jax.value_and_grad(lambda q: correlation_loss(q, flat, embed, locations(), PAPER)[0])
    loss, gradient = jax.jit(gradient)(flat)
    # All embeddings are alike (zero), so nothing tells pairs apart: chance.
    chance = sum(math.log(8 * n) for n in PAPER.centre_counts)
    np.testing.assert_allclose(loss, 0.3 * chance, rtol=1e-6)
    assert all(np.isfinite(x).all() for x in gradient)


def test_scores_reach_every_location_and_reduce_to_the_parts():
    query, key, centres = random_maps(0), random_maps(1), locations()
    stages = traced_scores(query, key, embed, centres, PAPER)
    _, parts = traced_loss(query, key, embed, centres, PAPER)
    for level, scores in enumerate(stages):
        q = np.asarray(embed(level, neighbour_disparities(query[level], centres[level])), np.float64)
        k = np.asarray(embed(level, neighbour_disparities(key[level], centres[level])), np.float64)
        cosines = np.einsum("bpe,bqe->bpq", q, k)
        pairs = cosines.shape[1]
        corresponding = np.diagonal(cosines, axis1=1, axis2=2)
        np.testing.assert_allclose(scores.nce, naive_nce(q, k, 0.07), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(scores.hit, cosines.argmax(-1) == np.arange(pairs))
        np.testing.assert_allclose(scores.corresponding, corresponding, rtol=1e-5, atol=1e-6)
        others = (cosines.sum(-1) - corresponding) / (pairs - 1)
        np.testing.assert_allclose(scores.other, others, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(parts.top1[level], scores.hit.mean(), rtol=1e-6)
        np.testing.assert_allclose(parts.corresponding_similarity[level], corresponding.mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(parts.other_similarity[level], others.mean(), rtol=1e-4, atol=1e-6)


def test_identical_images_are_retrieved_without_fail():
    maps = random_maps(0)
    _, parts = traced_loss(maps, maps, embed, locations(), PAPER)
    np.testing.assert_array_equal(parts.top1, 1.0)
    np.testing.assert_allclose(parts.corresponding_similarity, 1.0, rtol=1e-5)


def test_released_similarity_is_taken_along_pairs():
    query, key = random_units(0), random_units(1)
    order = jax.random.permutation(jax.random.key(0), 16)
    same, permuted = cosines_along_pairs(query, key, permutation=order)
    q, k = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (query, key))
    norms = np.linalg.norm(q, axis=-1) * np.linalg.norm(k, axis=-1)
    np.testing.assert_allclose(same, (q * k).sum(-1) / norms, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(permuted, (q * k[..., np.asarray(order)]).sum(-1) / norms, rtol=1e-5, atol=1e-6)


def test_similarity_without_a_permutation_is_the_mean_over_all():
    query, key = random_units(0, (1, 3, 2)), random_units(1, (1, 3, 2))
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    each = [cosines_along_pairs(query, key, permutation=jnp.array(order))[1] for order in orders]
    np.testing.assert_allclose(cosines_along_pairs(query, key)[1], np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
