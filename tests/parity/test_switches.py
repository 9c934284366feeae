"""Aligned switches: the exact run's side where that is chance, the value unmoved, the gradient of that side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from asccl_jax.losses.generator import VGG_WEIGHTS, feature_matching, passed_as_real, perceptual_distance
from asccl_jax.models.correlation import CorrelationMetric, init_variables
from asccl_jax.models.iresnet import PReLU
from asccl_jax.models.renderer import MultiscaleDiscriminator, RendererGenerator, init_renderer
from asccl_jax.models.vgg import STAGE_CONVOLUTIONS, VggFeatures
from asccl_jax.settings import MetricSettings, RendererSettings
from asccl_jax.tasks.frame_chunks import FrameChunk, generate_chunk
from tests.parity.switches import NEAR_ZERO, aligned, recorded

PRELU = {"params": {"slope": jnp.array([0.25])}}
RENDERER = RendererSettings(
    image_size=16,
    roi_size=8,
    generator_width=2,
    discriminator_width=2,
    residual_blocks=2,
    downsamplings=1,
    discriminator_scales=1,
    discriminator_layers=1,
)
QUICK = {"xla_backend_optimization_level": 0}


def slope(x):
    return jax.grad(lambda x: jnp.sum(PReLU().apply(PRELU, x)))(x)


def with_signs(function, *arguments):
    """What a function returns, and the switches it has."""

    def recording(*arguments):
        signs = []
        with recorded(signs):
            return function(*arguments), signs

    return jax.jit(recording, compiler_options=QUICK)(*arguments)


def with_gradient(function):
    """Value and gradient of a function, its switches on given sides where they are near zero."""

    def aligning(argument, signs, near):
        with aligned(signs, near=near):
            return function(argument)

    return jax.jit(jax.value_and_grad(aligning), compiler_options=QUICK)


def test_rectifier_near_zero_takes_the_recorded_side():
    inputs = jnp.array([1.0, -1.0, 1e-9, -1e-9]).reshape(1, 2, 2, 1)
    with aligned([jnp.array([True, False, False, True]).reshape(1, 2, 2, 1)]):
        gradient = slope(inputs)
    np.testing.assert_array_equal(gradient.reshape(-1), [1.0, 0.25, 0.25, 1.0])
    np.testing.assert_array_equal(slope(inputs).reshape(-1), [1.0, 0.25, 1.0, 0.25])


@pytest.mark.parametrize(("distance", "kept"), [(0.3, False), (3.0, True)])
def test_rectifier_that_is_wrong_by_more_than_rounding_keeps_its_side(distance, kept):
    # What a wrong sign in a network looks like: the exact run is elsewhere, and the error must stay to be seen.
    inputs = jnp.array([1.0, -1.0, 1.0, distance * NEAR_ZERO]).reshape(1, 2, 2, 1)
    signs = [jnp.array([True, False, True, False]).reshape(1, 2, 2, 1)]
    with aligned(signs):
        gradient = slope(inputs)
    assert gradient[0, 1, 1, 0] == (1.0 if kept else 0.25)


def test_every_rectifier_is_recorded_in_order_and_its_own_signs_change_nothing():
    settings = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(4, 4, 4, 4), image_size=33)
    module, variables = CorrelationMetric(settings), init_variables(settings, jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (1, 33, 33, 3))
    plain, signs = with_signs(lambda image: module.apply(variables, image), image)
    # Stem, one a block, one a head.
    assert len(signs) == 1 + 4 + 4

    def aligning(image):
        with aligned(signs):
            return module.apply(variables, image)

    for found, expected in zip(jax.jit(aligning)(image), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_switches_of_the_loop_over_frames_are_those_of_each_turn():
    params = init_renderer(RENDERER, jax.random.key(0))["generator"]
    keys = jax.random.split(jax.random.key(1), 4)
    chunk = FrameChunk(
        blocks=jax.random.uniform(keys[0], (1, 4, 16, 16, 9)),
        mask=jnp.ones((1, 2, 16, 16, 1)),
        real=jnp.zeros((1, 2, 16, 16, 3)),
        mouth_centre=jnp.zeros((1, 2, 2), jnp.int32),
        face_box=jnp.zeros((1, 2, 4)),
        scene=jnp.zeros((1, 2, 16, 16, 3)),
    )
    previous, cotangent = jax.random.normal(keys[2], (1, 16, 16, 6)), jax.random.normal(keys[3], (1, 2, 16, 16, 3))

    def loss(params):
        return jnp.sum(cotangent * generate_chunk(RendererGenerator(RENDERER), params, chunk, previous))

    plain, signs = with_signs(loss, params)
    # An encoder rectifies after each of its two convolutions and within its blocks; the decoder after its doubling.
    *encoder, inner = signs
    assert len(encoder) == 2 + RENDERER.encoder_blocks
    assert len(inner) == 2 + RENDERER.encoder_blocks + RENDERER.decoder_blocks + 1
    assert {len(turns) for turns in inner} == {2}
    taken = with_gradient(loss)
    value, own = taken(params, signs, NEAR_ZERO)
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    _, unmoved = taken(params, jax.tree.map(jnp.logical_not, signs), 0.0)
    jax.tree.map(np.testing.assert_array_equal, unmoved, own)
    # The second frame's turn alone, however far from zero.
    _, moved = taken(params, [*encoder, [inner[0].at[1].set(~inner[0][1]), *inner[1:]]], 1e9)
    changed = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), moved, own)
    # The first switch within a turn is the previous frames' encoder's.
    assert changed["previous_encoder"]["conv0"]["kernel"] > 1e-2


@pytest.mark.slow
def test_judges_switch_at_rectifiers_maxima_and_absolute_differences():
    vgg, widths = VggFeatures((2, 2, 2, 2, 2)), (2, 2, 2, 2, 2)
    judge = MultiscaleDiscriminator(RENDERER)
    keys = jax.random.split(jax.random.key(0), 4)
    fake, real = jax.random.normal(keys[0], (2, 1, 16, 16, 12))
    of_vgg = vgg.init(keys[1], fake[..., :3])
    of_judge = judge.init(keys[2], fake)

    def loss(fake):
        maps, of_real = judge.apply(of_judge, fake), judge.apply(of_judge, real)
        taps, of_real_taps = vgg.apply(of_vgg, fake[..., :3]), vgg.apply(of_vgg, real[..., :3])
        distance = perceptual_distance(taps, of_real_taps, VGG_WEIGHTS)
        return passed_as_real(maps) + feature_matching(maps, of_real) + distance

    plain, signs = with_signs(loss, fake)
    rectified = RENDERER.discriminator_layers + 1
    scales = RENDERER.discriminator_scales
    # Both images pass both networks; a maximum of four is three of two, of which two are taken at once.
    of_networks = 2 * scales * rectified + 2 * (sum(STAGE_CONVOLUTIONS) + 2 * (len(widths) - 1))
    assert len(signs) == of_networks + scales * rectified + len(VGG_WEIGHTS)
    taken = with_gradient(loss)
    value, own = taken(fake, signs, NEAR_ZERO)
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    np.testing.assert_allclose(own, jax.jit(jax.grad(loss), compiler_options=QUICK)(fake), rtol=1e-4, atol=1e-6)
    # A rectifier of the generated image's, VGG-19's first one, the last difference.
    for number in (0, 2 * scales * rectified, len(signs) - 1):
        sides = [~side if place == number else side for place, side in enumerate(signs)]
        assert float(jnp.max(jnp.abs(taken(fake, sides, 1e9)[1] - own))) > 1e-6


def test_maximum_takes_the_recorded_one_of_two_nearly_equal_values():
    maps = jnp.array([[1.0, 1.0 + 1e-6], [0.0, -1.0]]).reshape(1, 2, 2, 1)

    def largest(maps):
        return nn.max_pool(maps, (2, 2), (2, 2)).sum()

    _, (upper, across) = with_signs(largest, maps)
    assert bool(across.squeeze())
    _, gradient = with_gradient(largest)(maps, [upper, ~across], 1.0)
    np.testing.assert_array_equal(gradient.reshape(2, 2), [[1.0, 0.0], [0.0, 0.0]])
    _, gradient = with_gradient(largest)(maps, [upper, across], 1.0)
    np.testing.assert_array_equal(gradient.reshape(2, 2), [[0.0, 1.0], [0.0, 0.0]])


def test_signs_left_over_are_an_error():
    signs = [jnp.ones((1, 1, 1, 1), bool)] * 2
    with pytest.raises(AssertionError, match="fewer switches"), aligned(signs):
        PReLU().apply(PRELU, jnp.ones((1, 1, 1, 1)))
