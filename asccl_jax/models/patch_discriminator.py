"""Discriminator that judges overlapping patches of an image, at several resolutions."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float

from asccl_jax.models.convolution import Convolution
from asccl_jax.models.normalisation import InstanceNorm
from asccl_jax.models.precision import at_least_float32
from asccl_jax.renderer_settings import RendererSettings

__all__ = ["RENDERER_DEVIATION", "MultiscaleDiscriminator", "scale_widths"]

RENDERER_DEVIATION = 0.02
"""Standard deviation of fresh kernels of the renderer's networks."""

_LARGEST_FIRST_WIDTH = 64
_LARGEST_WIDTH = 512


def scale_widths(settings: RendererSettings, scale: int) -> tuple[int, ...]:
    """Returns the output channels of each layer at a scale, 0 being the full resolution.

    >>> scale_widths(RendererSettings(discriminator_width=8), 1)
    (16, 32, 64, 128, 1)
    """
    first = min(_LARGEST_FIRST_WIDTH, settings.discriminator_width * 2**scale)
    inner = (min(_LARGEST_WIDTH, first * 2**layer) for layer in range(settings.discriminator_layers + 1))
    return (*inner, 1)


class PatchDiscriminator(nn.Module):
    """A row of 4x4 convolutions; each value of the last map judges one patch.

    Attributes:
      widths: Output channels of each layer. All but the last two halve the side; all but the first and the last
        normalise.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    widths: tuple[int, ...]
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> list[Float[Array, "n _ _ _"]]:
        """Returns every layer's map, the judgements last, in float32."""
        last, maps = len(self.widths) - 1, []
        for layer, width in enumerate(self.widths):
            x = Convolution(
                width,
                kernel_size=4,
                stride=2 if layer < last - 1 else 1,
                dtype=self.dtype,
                implementation=self.conv_implementation,
                padding=2,
                use_bias=True,
                deviation=RENDERER_DEVIATION,
                name=f"layer{layer}",
            )(x)
            if 0 < layer < last:
                x = InstanceNorm(dtype=self.dtype, name=f"norm{layer}")(x)
            if layer < last:
                x = nn.leaky_relu(x, 0.2)
            maps.append(x.astype(at_least_float32(x.dtype)))
        return maps


class MultiscaleDiscriminator(nn.Module):
    """Patch discriminators with weights of their own at full resolution, half of it and on.

    Attributes:
      settings: Sizes of the networks.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    settings: RendererSettings
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> list[list[Float[Array, "n _ _ _"]]]:
        """Returns the maps of every scale, the full resolution first.

        Args:
          x: A frame's conditioning, then the image that is judged, its channels last.
        """
        judgements = []
        for scale in range(self.settings.discriminator_scales):
            if scale:
                edges = ((1, 1), (1, 1))
                x = nn.avg_pool(x, (3, 3), (2, 2), padding=edges, count_include_pad=False)
            widths = scale_widths(self.settings, scale)
            judge = PatchDiscriminator(widths, self.dtype, self.conv_implementation, name=f"scale{scale}")
            judgements.append(judge(x))
        return judgements
