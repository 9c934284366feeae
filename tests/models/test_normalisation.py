"""BatchNorm: PyTorch's statistics, groups that equal devices, the global batch under a mapped axis. InstanceNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.models.normalisation import BatchNorm, InstanceNorm

SCALE = np.array([1.5, 0.5, 2.0], np.float32)
BIAS = np.array([0.1, -0.2, 0.3], np.float32)


def make_variables():
    return {
        "params": {"scale": jnp.asarray(SCALE), "bias": jnp.asarray(BIAS)},
        "batch_stats": {"mean": jnp.array([0.2, -0.1, 0.0]), "var": jnp.array([1.1, 0.9, 2.0])},
    }


def make_images(batch=8):
    # Every image with a mean of its own, so that groups differ.
    noise = np.random.default_rng(0).standard_normal((batch, 4, 5, 3)).astype(np.float32)
    return noise + np.arange(batch, dtype=np.float32)[:, None, None, None]


def naive(images, group_size):
    """Normalised images and moved running statistics, written as loops in float64."""
    images = images.astype(np.float64)
    result, means, unbiased = np.empty_like(images), [], []
    for start in range(0, len(images), group_size):
        group = images[start : start + group_size]
        mean, var = group.mean((0, 1, 2)), group.var((0, 1, 2))
        result[start : start + group_size] = (group - mean) / np.sqrt(var + 1e-5) * SCALE + BIAS
        means.append(mean)
        unbiased.append(group.var((0, 1, 2), ddof=1))
    old = make_variables()["batch_stats"]
    return result, {
        "mean": 0.9 * np.asarray(old["mean"]) + 0.1 * np.mean(means, 0),
        "var": 0.9 * np.asarray(old["var"]) + 0.1 * np.mean(unbiased, 0),
    }


def train(images, **settings):
    module = BatchNorm(**settings)
    return module.apply(make_variables(), jnp.asarray(images), train=True, mutable=["batch_stats"])


@pytest.mark.parametrize(("group_size", "effective"), [(None, 8), (4, 4), (2, 2), (8, 8), (100, 8)])
def test_training_equals_the_naive_version(group_size, effective):
    images = make_images()
    found, moved = train(images, group_size=group_size)
    expected, statistics = naive(images, effective)
    # Float32 means over up to 160 values of size 8.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], statistics["mean"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moved["batch_stats"]["var"], statistics["var"], rtol=1e-6, atol=1e-6)


def test_groups_equal_devices_that_know_nothing_of_each_other():
    images = make_images()
    grouped, _ = train(images, group_size=2)
    alone = np.concatenate([np.asarray(train(images[start : start + 2])[0]) for start in range(0, 8, 2)])
    # The same sums; XLA may order them otherwise.
    np.testing.assert_allclose(grouped, alone, rtol=1e-6, atol=1e-6)


def test_running_statistics_normalise_in_evaluation_and_stay():
    images = make_images()
    found = BatchNorm().apply(make_variables(), jnp.asarray(images), train=False)
    old = jax.tree.map(np.asarray, make_variables()["batch_stats"])
    expected = (images - old["mean"]) / np.sqrt(old["var"] + 1e-5) * SCALE + BIAS
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_statistics_of_the_batch_do_not_move_the_running_ones_unless_mutable():
    images = jnp.asarray(make_images())
    frozen = BatchNorm().apply(make_variables(), images, train=True)
    np.testing.assert_array_equal(frozen, train(images)[0])


def test_variance_does_not_cancel_far_from_zero():
    images = make_images() * 0.1 + 1000.0
    found, _ = train(images)
    expected, _ = naive(images, 8)
    # The float32 mean of 160 values near 1000 is rounded to some 1e-3, of a standard deviation of 0.25; a difference of
    # moments, each a million, would be off by more than 1.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("group_size", "effective"), [(None, 16), (2, 2), (16, 16)])
def test_mapped_devices_equal_one_device(group_size, effective):
    images = make_images(16)
    expected, statistics = naive(images, effective)
    module = BatchNorm(group_size=group_size, axis_name="data")

    def step(variables, images):
        return module.apply(variables, images, train=True, mutable=["batch_stats"])

    mapped = jax.pmap(step, axis_name="data", in_axes=(None, 0))
    found, moved = mapped(make_variables(), images.reshape(8, 2, 4, 5, 3))
    np.testing.assert_allclose(np.asarray(found).reshape(images.shape), expected, rtol=1e-5, atol=1e-5)
    for device in range(8):
        np.testing.assert_allclose(moved["batch_stats"]["mean"][device], statistics["mean"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(moved["batch_stats"]["var"][device], statistics["var"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("group_size", "effective"), [(None, 16), (4, 4)])
def test_sharded_batch_equals_one_device(group_size, effective):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    images = make_images(16)
    sharded = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
    found, moved = jax.jit(lambda images: train(images, group_size=group_size))(sharded)
    expected, statistics = naive(images, effective)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["var"], statistics["var"], rtol=1e-6, atol=1e-6)


def test_gradient_passes_through_the_statistics_of_the_batch():
    images = jnp.asarray(make_images())
    target = jax.random.normal(jax.random.key(0), images.shape)

    def scalar(images):
        return jnp.sum(train(images, group_size=4)[0] * target)

    gradient = jax.grad(scalar)(images)
    # Neither the mean nor the scale of a group changes the result.
    groups = np.asarray(gradient, np.float64).reshape(2, 4, 4, 5, 3)
    np.testing.assert_allclose(groups.sum((1, 2, 3)), 0, atol=1e-4)
    assert np.abs(groups).max() > 0.1


def test_bfloat16_keeps_float32_statistics():
    images = jnp.asarray(make_images())
    found, moved = train(images.astype(jnp.bfloat16), dtype=jnp.bfloat16)
    assert found.dtype == jnp.bfloat16
    assert moved["batch_stats"]["mean"].dtype == jnp.float32
    exact, _ = naive(np.asarray(images.astype(jnp.bfloat16).astype(jnp.float32)), 8)
    # Only the result is rounded to 8 bits.
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=1e-3)


def test_batch_that_makes_no_whole_groups_is_refused():
    with pytest.raises(InputError, match="batch of 8 images cannot be split into BatchNorm groups of 3"):
        train(make_images(), group_size=3)


def test_group_that_devices_would_have_to_share_is_refused():
    module = BatchNorm(group_size=4, axis_name="data")
    mapped = jax.pmap(
        lambda images: module.apply(make_variables(), images, train=True, mutable=["batch_stats"]), axis_name="data"
    )
    with pytest.raises(InputError, match="batch of 2 images on each of 8 devices"):
        mapped(make_images(16).reshape(8, 2, 4, 5, 3))


def test_instances_are_normalised_each_by_itself():
    images = 100 + 3 * make_images()
    found = np.asarray(InstanceNorm().apply({}, jnp.asarray(images)), np.float64)
    exact = images.astype(np.float64)
    deviation = np.sqrt(exact.var(axis=(1, 2), keepdims=True) + 1e-5)
    # Values near 100 keep five digits after the mean is taken away.
    np.testing.assert_allclose(found, (exact - exact.mean(axis=(1, 2), keepdims=True)) / deviation, atol=1e-4)
    assert not InstanceNorm().init(jax.random.key(0), jnp.asarray(images))


def test_half_precision_instances_have_float32_statistics():
    images = jnp.asarray(make_images(), jnp.bfloat16)
    found = InstanceNorm(dtype=jnp.bfloat16).apply({}, images)
    assert found.dtype == jnp.bfloat16
    expected = InstanceNorm().apply({}, images.astype(jnp.float32))
    np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))


def test_running_statistics_are_used_if_given_and_move_as_pytorchs():
    images = make_images()
    statistics = {"mean": jnp.array([0.2, -0.1, 0.0]), "var": jnp.array([1.1, 0.9, 2.0])}
    variables = {"instance_stats": statistics}
    used = InstanceNorm().apply(variables, jnp.asarray(images))
    deviations = np.sqrt(np.asarray(statistics["var"]) + 1e-5)
    np.testing.assert_allclose(used, (images - np.asarray(statistics["mean"])) / deviations, atol=1e-5)
    out, moved = InstanceNorm().apply(variables, jnp.asarray(images), mutable=["instance_stats"])
    np.testing.assert_array_equal(out, InstanceNorm().apply({}, jnp.asarray(images)))
    for name, fresh in (("mean", images.mean(axis=(1, 2))), ("var", images.var(axis=(1, 2), ddof=1))):
        expected = 0.9 * np.asarray(statistics[name]) + 0.1 * fresh.mean(axis=0)
        np.testing.assert_allclose(moved["instance_stats"][name], expected, rtol=1e-5)
