"""Aligned rectifiers: the exact run's side, the value unmoved, the gradient of that side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.models.correlation import CorrelationMetric, init_variables
from asccl_jax.models.iresnet import PReLU
from asccl_jax.settings import MetricSettings
from tests.parity.switches import aligned, recorded

PRELU = {"params": {"slope": jnp.array([0.25])}}


def slope(x):
    return jax.grad(lambda x: jnp.sum(PReLU().apply(PRELU, x)))(x)


def test_rectifier_takes_the_recorded_side():
    nearly_zero = jnp.full((1, 1, 2, 1), 1e-9)
    with aligned([jnp.array([True, False]).reshape(1, 1, 2, 1)]):
        gradient = slope(nearly_zero)
    np.testing.assert_array_equal(gradient.reshape(-1), [1.0, 0.25])
    np.testing.assert_array_equal(slope(nearly_zero).reshape(-1), [1.0, 1.0])


def test_every_rectifier_is_recorded_in_order_and_its_own_signs_change_nothing():
    settings = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(4, 4, 4, 4), image_size=33)
    module, variables = CorrelationMetric(settings), init_variables(settings, jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (1, 33, 33, 3))

    def recording(image):
        signs = []
        with recorded(signs):
            return module.apply(variables, image), signs

    plain, signs = jax.jit(recording)(image)
    # Stem, one a block, one a head.
    assert len(signs) == 1 + 4 + 4

    def aligning(image):
        with aligned(signs):
            return module.apply(variables, image)

    for found, expected in zip(jax.jit(aligning)(image), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_signs_left_over_are_an_error():
    signs = [jnp.ones((1, 1, 1, 1), bool)] * 2
    with pytest.raises(AssertionError, match="fewer rectifiers"), aligned(signs):
        PReLU().apply(PRELU, jnp.ones((1, 1, 1, 1)))
