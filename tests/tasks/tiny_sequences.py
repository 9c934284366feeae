"""Sequences of a few small frames, and networks of a few thousand weights drawn without compiling JAX's generators."""

import jax
import numpy as np

from asccl_jax.models.renderer import init_renderer
from asccl_jax.settings import RendererSettings
from asccl_jax.types import SequenceBatch

TINY = RendererSettings(
    generator_width=4,
    downsamplings=1,
    residual_blocks=2,
    discriminator_width=4,
    discriminator_layers=1,
    roi_size=8,
    image_size=16,
)


def drawn_networks(settings, seed=0):
    """Returns normal kernels and biases, scaled so that signals neither die nor explode."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_renderer(settings, jax.random.key(0)))

    def draw(leaf):
        spread = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if len(leaf.shape) > 1 else 0.1
        return random.normal(0, spread, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


def sequences(count, *, frames=6, size=16, seed=0):
    """Returns noise in every picture, masked to a square; every second sequence begins as a video does."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 256, (4, count, frames, size, size, 3), dtype=np.uint8)
    mask = np.zeros((count, frames, size, size, 1), np.uint8)
    mask[:, :, 2:-2, 2:-2] = 255
    return SequenceBatch(
        *pictures,
        mask,
        random.integers(0, size, (count, frames, 2)).astype(np.int32),
        np.tile(np.array([3, 2.5, size - 2.5, size - 3], np.float32), (count, frames, 1)),
        np.ones(count, bool),
        np.arange(count) % 2 == 0,
        np.arange(count, dtype=np.int32),
    )


def chunk_of(batch, number=0, *, frames=2):
    """Returns one chunk of whole sequences with its two frames of context, as training takes it."""
    shown = slice(number * frames, (number + 1) * frames + 2)
    timed = ("image", "nmfc_image", "eyes_image", "shape_image", "mask", "mouth_centre", "face_box")
    begins = np.full(batch.begins.shape, number == 0)
    return batch.replace(**{name: getattr(batch, name)[:, shown] for name in timed}, begins=begins)
