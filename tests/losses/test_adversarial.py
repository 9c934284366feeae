"""Scores of several scales, by both kinds of adversarial loss, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.losses.adversarial import judged_fake, judged_real, passed_as_real

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
