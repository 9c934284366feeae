"""The renderer's generator: what each input does, and the start from nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.models.renderer import (
    MultiscaleDiscriminator,
    Renderer,
    RendererGenerator,
    conditioning_windows,
    init_renderer,
)
from asccl_jax.settings import RendererSettings
from tests.models.tiny_renderer import TINY_RENDERER, drawn_inputs, drawn_renderer

NETWORK = RendererGenerator(TINY_RENDERER)


@pytest.fixture(scope="module")
def renderer():
    return jax.tree.map(jnp.asarray, Renderer(drawn_renderer(TINY_RENDERER), TINY_RENDERER))


@jax.jit
def draw(renderer, blocks, previous, mask):
    return renderer.decode(renderer.encode(blocks), previous, mask)


def test_the_two_halves_are_the_whole(renderer):
    inputs = [jnp.asarray(array) for array in drawn_inputs(2)]
    whole = jax.jit(NETWORK.apply)({"params": renderer.params["generator"]}, *inputs)
    assert whole.shape == (2, 32, 32, 3)
    assert renderer.encode(inputs[0]).shape == (2, 8, 8, 16)
    np.testing.assert_allclose(draw(renderer, *inputs), whole, atol=1e-5)


def test_every_input_matters_and_rows_do_not_mix(renderer):
    blocks, previous, mask = drawn_inputs(2)
    before = np.asarray(draw(renderer, blocks, previous, mask))
    for changed in (
        (np.where(np.arange(27) < 9, 1 - blocks, blocks), previous, mask),
        (blocks, previous[..., ::-1], mask),
    ):
        after = np.asarray(
            draw(
                renderer,
                *(np.stack([old[0], new[1]]) for old, new in zip((blocks, previous, mask), changed, strict=True)),
            )
        )
        np.testing.assert_allclose(after[0], before[0], atol=1e-5)
        assert np.abs(after[1] - before[1]).max() > 1e-2
    assert (before[np.broadcast_to(mask, before.shape) == 0] == -1).all()
    assert np.abs(before).max() <= 1


def test_from_zeros_the_previous_frames_contribute_exactly_nothing(renderer):
    blocks, previous, mask = drawn_inputs(2)
    previous[0] = 0
    other = drawn_renderer(TINY_RENDERER, seed=5)["generator"]["previous_encoder"]
    generator = {**renderer.params["generator"], "previous_encoder": other}
    first = np.asarray(draw(renderer, blocks, previous, mask))
    second = np.asarray(draw(renderer.replace(params={"generator": generator}), blocks, previous, mask))
    np.testing.assert_array_equal(first[0], second[0])
    # The row beside it, which has begun, depends on them.
    assert np.abs(first[1] - second[1]).max() > 1e-2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_from_zeros_are_finite_and_exactly_zero_for_the_unused_branch(renderer, dtype):
    blocks, previous, mask = drawn_inputs(2)
    network = RendererGenerator(TINY_RENDERER, dtype)

    @jax.jit
    def gradients(params, previous):
        def loss(params, previous):
            return jnp.sum(network.apply({"params": params}, jnp.asarray(blocks), previous, jnp.asarray(mask)) ** 2)

        return jax.grad(loss, argnums=(0, 1))(params, previous)

    params = renderer.params["generator"]
    by_params, by_previous = gradients(params, jnp.zeros_like(previous))
    assert not by_previous.any()
    assert not any(leaf.any() for leaf in jax.tree.leaves(by_params["previous_encoder"]))
    for part in ("conditioning_encoder", "decoder"):
        assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in jax.tree.leaves(by_params[part]))
        assert jnp.abs(by_params[part]["block0"]["conv0"]["kernel"]).max() > 0
    by_params, by_previous = gradients(params, jnp.asarray(previous))
    assert by_previous.any()
    assert by_params["previous_encoder"]["conv0"]["kernel"].any()


def test_half_precision_computes_nearly_the_same_and_returns_float32(renderer):
    inputs = drawn_inputs(2)
    exact = draw(renderer, *inputs)
    half = draw(renderer.replace(dtype=jnp.bfloat16), *inputs)
    assert half.dtype == jnp.float32
    # Eight bits of mantissa through fourteen layers.
    assert float(jnp.mean(jnp.abs(half - exact))) < 0.05
    assert jnp.abs(half - exact).max() > 0


def test_windows_end_with_the_frame_that_is_drawn():
    blocks = np.arange(5 * 9, dtype=np.float32).reshape(1, 5, 1, 1, 9)
    windows = np.asarray(conditioning_windows(blocks))
    assert windows.shape == (1, 3, 1, 1, 27)
    np.testing.assert_array_equal(windows[0, 2, 0, 0], np.arange(18, 45))


def test_half_of_the_blocks_rounded_up_are_before_the_sum(renderer):
    generator = renderer.params["generator"]
    for part, blocks in (("conditioning_encoder", 2), ("previous_encoder", 2), ("decoder", 1)):
        assert sum(name.startswith("block") for name in generator[part]) == blocks


def test_fresh_weights_are_as_published():
    settings = dataclasses.replace(TINY_RENDERER, generator_width=8, residual_blocks=2, eyes=True)
    networks = init_renderer(settings, jax.random.key(0))
    assert set(networks) == {"generator", "discriminator", "mouth_discriminator", "eyes_discriminator"}
    block = networks["generator"]["decoder"]["block0"]["conv0"]
    # 9216 draws: 2 % is three standard errors.
    np.testing.assert_allclose(np.std(block["kernel"]), 0.02, rtol=0.02)
    for layer, fan_in in (
        (block, 9 * 32),
        (networks["generator"]["decoder"]["up0"], 9 * 16),  # of its outputs, as PyTorch counts
        (networks["discriminator"]["scale1"]["layer3"], 16 * 32),
    ):
        bound = fan_in**-0.5
        assert 0.8 * bound < np.abs(layer["bias"]).max() <= bound
    assert not np.array_equal(
        networks["discriminator"]["scale0"]["layer0"]["kernel"],
        networks["mouth_discriminator"]["scale0"]["layer0"]["kernel"],
    )


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (256, [(129, 65, 33, 34, 35), (65, 33, 17, 18, 19)]),
        (72, [(37, 19, 10, 11, 12), (19, 10, 6, 7, 8)]),
    ],
)
def test_maps_have_the_published_sizes(side, expected):
    network = MultiscaleDiscriminator(RendererSettings())
    image = jax.ShapeDtypeStruct((1, side, side, 12), jnp.float32)
    scales, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), image)
    assert [tuple(found.shape[1] for found in layers) for layers in scales] == expected
    assert [found.shape[-1] for found in scales[1]] == [64, 128, 256, 512, 1]


def test_images_do_not_influence_each_other_and_only_inner_layers_forget_contrast():
    params = drawn_renderer(TINY_RENDERER)["discriminator"]
    judge = jax.jit(MultiscaleDiscriminator(TINY_RENDERER).apply)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 12)).astype(np.float32)
    together, alone = judge({"params": params}, images), judge({"params": params}, images[:1])
    for layers, single in zip(together, alone, strict=True):
        for maps, one in zip(layers, single, strict=True):
            np.testing.assert_allclose(maps[:1], one, atol=1e-5)
    # Slope 0.2 below zero, after the statistics of each channel are taken away.
    inner = np.asarray(together[0][1])
    restored = np.where(inner < 0, inner / 0.2, inner)
    np.testing.assert_allclose(restored.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(restored.std(axis=(1, 2)), 1, atol=1e-3)
    assert np.abs(np.asarray(together[0][0]).mean(axis=(1, 2))).max() > 0.01


def test_the_second_scale_sees_averages_of_real_pixels():
    params = drawn_renderer(TINY_RENDERER)["discriminator"]
    ones = np.ones((1, 32, 32, 12), np.float32)
    first = np.asarray(jax.jit(MultiscaleDiscriminator(TINY_RENDERER).apply)({"params": params}, ones)[1][0])
    # An average that counted padding would darken the corner; the layer's own padding does it, of two pixels.
    kernel, bias = (params["scale1"]["layer0"][name] for name in ("kernel", "bias"))
    expected = kernel[2:, 2:].sum(axis=(0, 1, 2)) + bias
    np.testing.assert_allclose(first[0, 0, 0], np.where(expected < 0, 0.2 * expected, expected), atol=1e-5)
