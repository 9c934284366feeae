"""Trunk and heads: shapes, names and conventions; the numbers are the goldens' part (tests/parity)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.models.correlation import (
    CorrelationMetric,
    FrozenMetric,
    init_variables,
    prepare_images,
    resize_images,
)
from asccl_jax.models.iresnet import PReLU
from asccl_jax.norms import safe_norm, unit_vectors
from asccl_jax.settings import MetricSettings

TINY = MetricSettings(stage_blocks=(1, 2, 1, 1), stage_widths=(4, 8, 8, 12), image_size=40, bn_group_size=None)


@pytest.fixture(scope="module")
def variables():
    return init_variables(TINY, jax.random.key(0))


def random_images(batch=2, size=40):
    return jax.random.uniform(jax.random.key(1), (batch, size, size, 3), minval=-1.0, maxval=1.0)


@functools.partial(jax.jit, static_argnames=("settings", "train", "mutable"))
def features(variables, images, settings=TINY, *, train, mutable=False):
    return CorrelationMetric(settings).apply(variables, images, train=train, mutable=mutable, method="features")


def test_published_network_has_the_published_number_of_weights():
    shapes = jax.eval_shape(lambda: init_variables(MetricSettings(), jax.random.key(0)))
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in shapes["params"].items()}
    # The trunk without the 1,024 of the BatchNorm that is never called.
    assert counts == {"trunk": 30_744_256 - 1_024, "heads": 436_400}


def test_parameters_have_the_names_that_converters_know(variables):
    assert sorted(variables["params"]["trunk"]) == ["stage1", "stage2", "stage3", "stage4", "stem"]
    assert sorted(variables["params"]["trunk"]["stem"]) == ["activation", "conv", "norm"]
    assert sorted(variables["params"]["trunk"]["stage2"]["block0"]) == [
        "activation",
        "conv1",
        "conv2",
        "norm1",
        "norm2",
        "norm3",
        "shortcut_conv",
        "shortcut_norm",
    ]
    assert "shortcut_conv" not in variables["params"]["trunk"]["stage2"]["block1"]
    assert variables["params"]["heads"]["stage4"]["output"]["kernel"].shape == (12, 3)
    assert sorted(variables["batch_stats"]["trunk"]["stem"]["norm"]) == ["mean", "var"]


@pytest.mark.parametrize(("size", "sides"), [(40, (20, 10, 5, 3)), (33, (17, 9, 5, 3)), (224, (112, 56, 28, 14))])
def test_every_stage_halves_the_map_and_rounds_up(variables, size, sides):
    maps = jax.eval_shape(lambda: features(variables, random_images(1, size), train=False))
    assert [x.shape for x in maps] == [(1, s, s, w) for s, w in zip(sides, TINY.stage_widths, strict=True)]


def test_training_moves_statistics_and_evaluation_does_not(variables):
    maps, moved = features(variables, random_images(), train=True, mutable=("batch_stats",))
    old, new = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(moved["batch_stats"])
    assert all((a != b).any() for a, b in zip(old, new, strict=True))
    frozen = features(variables, random_images(), train=True)
    np.testing.assert_allclose(frozen[3], maps[3], rtol=1e-4, atol=1e-5)
    _, kept = features(variables, random_images(), train=False, mutable=("batch_stats",))
    np.testing.assert_array_equal(jax.tree.leaves(kept)[0], old[0])


def test_embeddings_have_unit_length_and_a_quarter_of_the_width(variables):
    module = CorrelationMetric(TINY)
    for level, width in enumerate(TINY.stage_widths):
        disparities = jax.random.normal(jax.random.key(level), (2, 5, width))
        embeddings = module.apply(variables, level, disparities, method="embed")
        assert embeddings.shape == (2, 5, width // 4)
        np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1.0, rtol=1e-5)


def test_head_equals_its_formula(variables):
    head = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"]["heads"]["stage2"])
    disparities = np.random.default_rng(0).standard_normal((2, 5, 8))
    hidden = np.maximum(disparities @ head["hidden"]["kernel"] + head["hidden"]["bias"], 0)
    raw = hidden @ head["output"]["kernel"] + head["output"]["bias"]
    expected = raw / (np.linalg.norm(raw, axis=-1, keepdims=True) + 1e-7)
    found = CorrelationMetric(TINY).apply(variables, 1, jnp.asarray(disparities, jnp.float32), method="embed")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_bgr_network_is_fed_bgr_by_callers_who_pass_rgb(variables):
    images = random_images()
    bgr = dataclasses.replace(TINY, channel_order="bgr")
    turned = features(variables, images, bgr, train=False)
    np.testing.assert_array_equal(turned[0], features(variables, images[..., ::-1], train=False)[0])
    assert (turned[0] != features(variables, images, train=False)[0]).any()


def test_implementations_of_the_convolution_agree(variables):
    def gradient(implementation):
        module = CorrelationMetric(TINY, conv_implementation=implementation)

        def scalar(variables):
            maps = module.apply(variables, random_images(), train=True, method="features")
            return sum(jnp.mean(jnp.square(x)) for x in maps)

        return jax.tree.leaves(jax.jit(jax.grad(scalar))(variables)["params"]["trunk"])

    for found, expected in zip(gradient("phase"), gradient("xla"), strict=True):
        # Float32 through eleven BatchNorms; no PReLU flips at these weights.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max()) + 1e-7)


def test_bfloat16_hands_out_float32_close_to_the_exact_maps(variables):
    module = CorrelationMetric(TINY, dtype=jnp.bfloat16)
    maps = jax.jit(lambda images: module.apply(variables, images, train=False, method="features"))(random_images())
    for found, exact in zip(maps, features(variables, random_images(), train=False), strict=True):
        assert found.dtype == jnp.float32
        # Eight bits a layer, some ten layers.
        assert float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)) < 0.05
    embeddings = module.apply(variables, 0, jnp.ones((1, 2, 4)), method="embed")
    assert embeddings.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1.0, rtol=1e-5)


def test_prelu_is_leaky_per_channel_and_takes_the_slope_at_zero():
    module = PReLU()
    variables = {"params": {"slope": jnp.array([0.5, 0.25])}}
    x = jnp.array([-2.0, -2.0, 0.0, 0.0, 3.0, 3.0]).reshape(1, 3, 1, 2)
    np.testing.assert_array_equal(module.apply(variables, x).reshape(-1), [-1.0, -0.5, 0.0, 0.0, 3.0, 3.0])
    # PyTorch's convention: at zero the gradient is the slope.
    gradient = jax.grad(lambda x: jnp.sum(module.apply(variables, x)))(x)
    np.testing.assert_array_equal(gradient.reshape(-1), [0.5, 0.25, 0.5, 0.25, 1.0, 1.0])


def test_heads_start_uniform_within_the_inverse_root_of_the_width():
    head = init_variables(MetricSettings(stage_blocks=(1, 1, 1, 1)), jax.random.key(0))["params"]["heads"]["stage4"]
    bound = 512**-0.5
    for leaf in jax.tree.leaves(head):
        assert float(jnp.abs(leaf).max()) <= bound
        # A uniform draw's standard deviation is the bound over the root of three; 128 draws of the smallest array.
        np.testing.assert_allclose(jnp.std(leaf), bound / 3**0.5, rtol=0.2)


def test_stored_images_become_minus_one_to_one():
    images = jnp.zeros((1, 40, 40, 3), jnp.uint8).at[:, :, 1:].set(255)
    prepared = prepare_images(images, TINY)
    assert prepared.dtype == jnp.float32
    np.testing.assert_array_equal(prepared[0, 0, :2, 0], [-1.0, 1.0])


@pytest.mark.parametrize(("compat", "seen"), [("paper", True), ("released", False)])
def test_training_on_larger_images_sees_all_of_them_unless_it_is_the_released(compat, seen):
    settings = MetricSettings.from_compat(compat, image_size=40)
    # Middle of pixel i is at 4 i + 1.5 of the large image: between two of its pixels, two others remain unseen.
    unseen = jnp.zeros((1, 160, 160, 3), jnp.uint8).at[:, :, ::4].set(255)
    row = prepare_images(unseen, settings)[0, 20, 1:-1, 0]
    np.testing.assert_array_equal(row > -0.99, seen)


def test_a_frozen_metric_gives_a_gradient_to_every_pixel_of_a_large_image(variables):
    # The released training's way to shrink is not for a loss.
    for resizing in ("antialiased", "sampled"):
        metric = FrozenMetric(variables, dataclasses.replace(TINY, resizing=resizing))
        gradient = jax.jit(jax.grad(lambda x, m=metric: sum(jnp.sum(jnp.abs(y)) for y in m.features(x))))(
            random_images(1, 180)
        )
        assert (jnp.abs(gradient).sum(-1) > 0).all()


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.bool_])
def test_whole_numbers_are_no_image_even_while_tracing(variables, dtype):
    metric = FrozenMetric(variables, TINY)
    for call in (metric.features, jax.jit(metric.features)):
        with pytest.raises(InputError, match=rf"image: {jnp.dtype(dtype)}, expected floating-point RGB in \[-1, 1\]"):
            call(jnp.zeros((1, 40, 40, 3), dtype))


def test_sampling_is_bilinear_at_half_pixels_without_antialiasing():
    row = jnp.arange(8.0)
    images = jnp.broadcast_to(row[None, None, :, None], (1, 8, 8, 3))
    # Middle of output pixel i is at 4 i + 2 - 0.5; antialiasing would average eight pixels instead of two.
    impulse = jnp.zeros((1, 8, 8, 3)).at[:, :, 0].set(1.0)
    np.testing.assert_allclose(resize_images(images, 2, antialias=False)[0, 0, :, 0], [1.5, 5.5], rtol=1e-6)
    np.testing.assert_allclose(resize_images(impulse, 2, antialias=False)[0, :, :, 0], 0.0, atol=1e-7)
    assert resize_images(images, 8) is images


def test_frozen_metric_resizes_and_keeps_statistics(variables):
    metric = FrozenMetric(variables=variables, settings=TINY)
    images = random_images(size=64)
    expected = features(variables, resize_images(images, 40), train=False)
    np.testing.assert_allclose(jax.jit(FrozenMetric.features)(metric, images)[2], expected[2], rtol=1e-4, atol=1e-5)


def test_frozen_metric_may_use_the_statistics_of_its_batch_as_the_released_renderer_does(variables):
    # A group size that the batch is no multiple of: groups are training's affair.
    settings = dataclasses.replace(TINY, frozen_statistics="batch", bn_group_size=2)
    metric = FrozenMetric(variables=variables, settings=settings)
    found = jax.jit(FrozenMetric.features)(metric, random_images(3))
    expected = features(variables, random_images(3), train=True)
    # Float32 through nine BatchNorms over few values, compiled twice.
    np.testing.assert_allclose(found[3], expected[3], rtol=1e-4, atol=1e-5)


def test_norm_and_unit_vectors_are_finite_at_zero():
    vectors = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(safe_norm(vectors), [[0.0], [5.0]], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(safe_norm(x)))(vectors)
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.6, 0.8]], rtol=1e-6)
    jacobian = jax.jacobian(unit_vectors)(vectors)
    assert np.isfinite(jacobian).all()
    # At zero the norm is flat and the vector is divided by epsilon alone.
    np.testing.assert_allclose(jacobian[0, :, 0], np.eye(2) / 1e-7, rtol=1e-5)
