"""A manipulator of a few thousand weights, drawn without compiling JAX's generators."""

import jax
import numpy as np

from asccl_jax.models.manipulator import init_manipulator
from asccl_jax.settings import ManipulatorSettings

TINY_MANIPULATOR = ManipulatorSettings(
    coefficients=5,
    style_size=3,
    latent_size=2,
    hidden_size=8,
    generator_width=8,
    generator_head_width=12,
    encoder_widths=(10, 8),
    encoder_lstm_width=6,
    encoder_head_widths=(9, 7),
    window=4,
)


def drawn_manipulator(settings, seed=0):
    """Returns normal weights and biases, scaled so that signals neither die nor explode."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_manipulator(settings, jax.random.key(0)))

    def draw(leaf):
        spread = leaf.shape[-2] ** -0.5 if len(leaf.shape) > 1 else 0.3
        return random.normal(0, spread, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)
