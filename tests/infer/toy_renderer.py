"""A renderer whose frames can be foretold: a little of three frames' conditioning and of the two frames before."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct


class Sizes(NamedTuple):
    context_frames: int = 3
    previous_frames: int = 2
    downsamplings: int = 3
    image_size: int = 16


@struct.dataclass
class ToyRenderer:
    weights: jnp.ndarray
    settings: Sizes = struct.field(pytree_node=False, default=Sizes())

    def encode(self, blocks):
        return jnp.einsum("nhwc,cd->nhwd", blocks, self.weights)

    def decode(self, encoded, previous, mask):
        image = jnp.tanh(encoded + 0.5 * previous[..., 3:] + 0.25 * previous[..., :3])
        return image * mask - (1 - mask)


class Frame(NamedTuple):
    nmfc_image: np.ndarray
    eyes_image: np.ndarray
    shape_image: np.ndarray
    mask: np.ndarray


def toy_renderer() -> ToyRenderer:
    return ToyRenderer(np.random.default_rng(1).normal(0, 0.3, (27, 3)).astype(np.float32))


def toy_frames(count: int, size: int = 16) -> list[Frame]:
    random = np.random.default_rng(count)
    return [
        Frame(
            *random.integers(0, 256, (3, size, size, 3), np.uint8),
            np.where(random.random((size, size, 1)) < 0.7, 255, 0).astype(np.uint8),
        )
        for _ in range(count)
    ]
