"""The convolutions of VGG-19, whose maps tell how alike two images look."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, DTypeLike, Float, Key

from asccl_jax.models.convolution import Convolution
from asccl_jax.models.normalisation import at_least_float32
from asccl_jax.types import Variables

__all__ = ["PUBLISHED_WIDTHS", "STAGE_CONVOLUTIONS", "Vgg", "VggFeatures", "init_vgg"]

PUBLISHED_WIDTHS = (64, 128, 256, 512, 512)
STAGE_CONVOLUTIONS = (2, 2, 4, 4, 1)
"""Convolutions at each resolution, as far as the last map that is used."""

_LARGEST_SIDE = 1024


class VggFeatures(nn.Module):
    """Convolutions and rectifiers at five resolutions.

    Attributes:
      widths: Channels at each resolution.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    widths: tuple[int, ...] = PUBLISHED_WIDTHS
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "n h w 3"]) -> list[Float[Array, "n _ _ _"]]:
        """Returns the maps after the first rectifier of each resolution, in float32.

        Args:
          image: RGB in [-1, 1], as it is: not normalised as for ImageNet. Wider than 1024 pixels it is halved.
        """
        x, taps = image, []
        while x.shape[2] > _LARGEST_SIDE:
            x = _halved(x)
        for stage, (width, convolutions) in enumerate(zip(self.widths, STAGE_CONVOLUTIONS, strict=True)):
            if stage:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for number in range(convolutions):
                x = Convolution(
                    width,
                    dtype=self.dtype,
                    implementation=self.conv_implementation,
                    use_bias=True,
                    name=f"conv{stage + 1}_{number + 1}",
                )(x)
                x = nn.relu(x)
                if number == 0:
                    taps.append(x.astype(at_least_float32(x.dtype)))
        return taps


def _halved(image: Float[Array, "n h w c"]) -> Float[Array, "n _ _ c"]:
    """Returns the means of 2x2 pixels; an odd row or column at the end is left out."""
    count, rows, columns, channels = image.shape[0], image.shape[1] // 2, image.shape[2] // 2, image.shape[3]
    pairs = image[:, : 2 * rows, : 2 * columns].reshape(count, rows, 2, columns, 2, channels)
    return jnp.mean(pairs, axis=(2, 4))


def init_vgg(key: Key[Array, ""], widths: tuple[int, ...] = PUBLISHED_WIDTHS) -> Variables:
    """Returns fresh weights, which tell nothing of images: a tree to fit a user's own into."""
    return VggFeatures(widths).init(key, jnp.zeros((1, 16, 16, 3), jnp.float32))["params"]


@struct.dataclass
class Vgg:
    """The convolutions with their weights, frozen: no gradient reaches them.

    Attributes:
      params: Their weights; `asccl convert vgg19` brings a user's own.
      widths: Channels at each resolution.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    params: Variables
    widths: tuple[int, ...] = struct.field(pytree_node=False, default=PUBLISHED_WIDTHS)
    dtype: DTypeLike = struct.field(pytree_node=False, default=jnp.float32)
    conv_implementation: str = struct.field(pytree_node=False, default="auto")

    def features(self, image: Float[Array | np.ndarray, "n h w 3"]) -> list[Float[Array, "n _ _ _"]]:
        """Returns five maps of an RGB image in [-1, 1]; see `VggFeatures`."""
        network = VggFeatures(self.widths, self.dtype, self.conv_implementation)
        taps: Any = network.apply({"params": jax.lax.stop_gradient(self.params)}, jnp.asarray(image))
        return taps
