"""The multi-scale discriminator: published map sizes, scales in order, statistics of each image alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.models.patch_discriminator import MultiscaleDiscriminator
from asccl_jax.renderer_settings import RendererSettings
from tests.models.tiny_renderer import TINY, drawn_networks


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
    params = drawn_networks(TINY)["discriminator"]
    judge = jax.jit(MultiscaleDiscriminator(TINY).apply)
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
    params = drawn_networks(TINY)["discriminator"]
    ones = np.ones((1, 32, 32, 12), np.float32)
    first = np.asarray(jax.jit(MultiscaleDiscriminator(TINY).apply)({"params": params}, ones)[1][0])
    # An average that counted padding would darken the corner; the layer's own padding does it, of two pixels.
    kernel, bias = (params["scale1"]["layer0"][name] for name in ("kernel", "bias"))
    expected = kernel[2:, 2:].sum(axis=(0, 1, 2)) + bias
    np.testing.assert_allclose(first[0, 0, 0], np.where(expected < 0, 0.2 * expected, expected), atol=1e-5)
