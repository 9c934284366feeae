"""A renderer of a few thousand weights, drawn without compiling JAX's generators."""

import jax
import numpy as np

from asccl_jax.models.renderer import init_renderer
from asccl_jax.settings import RendererSettings

TINY_RENDERER = RendererSettings(
    generator_width=4, downsamplings=2, residual_blocks=3, discriminator_width=4, roi_size=16, image_size=32
)


def drawn_renderer(settings, seed=0):
    """Returns normal weights and biases, scaled so that signals neither die nor explode."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_renderer(settings, jax.random.key(0)))

    def draw(leaf):
        spread = np.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 else 0.3
        return random.normal(0, spread, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


def drawn_inputs(count, seed=1, size=32):
    """Returns conditioning, previous frames and masks."""
    random = np.random.default_rng(seed)
    blocks = random.uniform(0, 1, (count, size, size, 27)).astype(np.float32)
    previous = random.uniform(-1, 1, (count, size, size, 6)).astype(np.float32)
    return blocks, previous, (random.random((count, size, size, 1)) > 0.3).astype(np.float32)
