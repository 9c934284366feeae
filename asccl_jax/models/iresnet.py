"""IResNet, ArcFace's residual trunk, with the output of each of its four stages."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float

from asccl_jax.models.convolution import Convolution
from asccl_jax.models.normalisation import BatchNorm

__all__ = ["IResNet", "PReLU"]


@dataclasses.dataclass(frozen=True)
class LayerSettings:
    """What all layers of a trunk share; the fields are those of `IResNet`."""

    dtype: DTypeLike
    bn_group_size: int | None
    axis_name: str | None
    conv_implementation: str

    def convolution(self, features: int, *, name: str, kernel_size: int = 3, stride: int = 1) -> Convolution:
        """Returns a convolution of the trunk."""
        return Convolution(features, kernel_size, stride, self.dtype, self.conv_implementation, name=name)

    def norm(self, *, name: str) -> BatchNorm:
        """Returns a BatchNorm of the trunk."""
        return BatchNorm(group_size=self.bn_group_size, axis_name=self.axis_name, dtype=self.dtype, name=name)


class PReLU(nn.Module):
    """Leaky rectifier with a learned slope, 0.25 at first.

    Attributes:
      shared: Whether all channels have one slope rather than each its own.
    """

    shared: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns x where positive, slope times x elsewhere."""
        slope = self.param("slope", nn.initializers.constant(0.25), (1 if self.shared else x.shape[-1],), jnp.float32)
        return jnp.where(x > 0, x, x * slope.astype(x.dtype)[None, None, None])


class Stem(nn.Module):
    """Convolution of stride 1, BatchNorm and PReLU: the map keeps the image's size."""

    width: int
    layers: LayerSettings

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b h w c"]:
        """Returns the first feature map."""
        x = self.layers.convolution(self.width, name="conv")(image)
        x = self.layers.norm(name="norm")(x, train=train)
        return PReLU(name="activation")(x)


class Stage(nn.Module):
    """Residual blocks at one width, the first of stride 2."""

    blocks: int
    width: int
    layers: LayerSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Returns the map after the stage's last block."""
        for block in range(self.blocks):
            x = Block(self.width, 2 if block == 0 else 1, self.layers, name=f"block{block}")(x, train=train)
        return x


class Block(nn.Module):
    """BatchNorm, convolution, BatchNorm, PReLU, convolution with the stride, BatchNorm, plus the shortcut."""

    width: int
    stride: int
    layers: LayerSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Returns the sum of the residual and the shortcut; no activation follows the sum."""
        layers = self.layers
        residual = layers.norm(name="norm1")(x, train=train)
        residual = layers.convolution(self.width, name="conv1")(residual)
        residual = layers.norm(name="norm2")(residual, train=train)
        residual = PReLU(name="activation")(residual)
        residual = layers.convolution(self.width, stride=self.stride, name="conv2")(residual)
        residual = layers.norm(name="norm3")(residual, train=train)
        if self.stride > 1:
            x = layers.convolution(self.width, kernel_size=1, stride=self.stride, name="shortcut_conv")(x)
            x = layers.norm(name="shortcut_norm")(x, train=train)
        return residual + x


class IResNet(nn.Module):
    """Stem of stride 1 and four residual stages, each of which halves the map (odd sides round up).

    Attributes:
      stage_blocks: Residual blocks of each stage.
      stage_widths: Channels of each stage.
      dtype: Type of the computation; statistics and weights stay in float32.
      bn_group_size: Images over which training statistics are taken, see `BatchNorm`.
      axis_name: Mapped axis under `pmap` or `shard_map`, see `BatchNorm`.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    stage_blocks: tuple[int, int, int, int] = (3, 4, 14, 3)
    stage_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    dtype: DTypeLike = jnp.float32
    bn_group_size: int | None = None
    axis_name: str | None = None
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Returns the maps after each of the four stages.

        Args:
          image: Images in [-1, 1], in the channel order the weights were trained on.
          train: Whether BatchNorm uses and moves statistics of the batch.
        """
        layers = LayerSettings(self.dtype, self.bn_group_size, self.axis_name, self.conv_implementation)
        x = Stem(self.stage_widths[0], layers, name="stem")(image, train=train)
        taps = []
        for stage, (blocks, width) in enumerate(zip(self.stage_blocks, self.stage_widths, strict=True), start=1):
            x = Stage(blocks, width, layers, name=f"stage{stage}")(x, train=train)
            taps.append(x)
        return tuple(taps)
