"""ResNetFace-18, whose embeddings of grey faces the Fréchet distance of the published tables is taken of."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from asccl_jax.models.conv_norm import max_pool, vector_norm
from asccl_jax.models.convolution import Convolution
from asccl_jax.models.iresnet import PReLU
from asccl_jax.models.normalisation import BatchNorm

__all__ = ["BLOCKS", "ResNetFace"]

BLOCKS = 2
"""Residual blocks of each stage."""


class ResNetFace(nn.Module):
    """Stem, four stages of two blocks, a linear layer; evaluated only.

    Attributes:
      widths: Channels of each stage.
      embedding: Numbers that come out.
      image_size: Side of the pictures, a multiple of 16, which the linear layer is made for.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    embedding: int = 512
    image_size: int = 128

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what it takes, without the batch."""
        return ((self.image_size, self.image_size, 1),)

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 1"]) -> Float[Array, "b d"]:
        """Returns embeddings, not normalised, of grey pictures in [-1, 1]."""
        x = Convolution(self.widths[0], name="stem_conv")(image)
        x = BatchNorm(name="stem_norm")(x, train=False)
        x = max_pool(PReLU(shared=True, name="stem_activation")(x), 2, 2)
        for stage, width in enumerate(self.widths, start=1):
            for block in range(BLOCKS):
                stride = 2 if stage > 1 and block == 0 else 1
                x = _Block(width, stride, name=f"stage{stage}_block{block}")(x)
        x = BatchNorm(name="map_norm")(x, train=False)
        x = nn.Dense(self.embedding, name="embedding")(x.reshape(x.shape[0], -1))
        return vector_norm(x, name="embedding_norm")


class _Block(nn.Module):
    """BatchNorm, convolution, BatchNorm, PReLU, convolution, BatchNorm, plus the shortcut, and the same PReLU again."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        channels = x.shape[-1]
        activation = PReLU(shared=True, name="activation")
        residual = BatchNorm(name="norm0")(x, train=False)
        residual = Convolution(channels, name="conv1")(residual)
        residual = activation(BatchNorm(name="norm1")(residual, train=False))
        residual = Convolution(self.width, stride=self.stride, name="conv2")(residual)
        residual = BatchNorm(name="norm2")(residual, train=False)
        if self.stride > 1 or channels != self.width:
            x = Convolution(self.width, 1, self.stride, name="shortcut_conv")(x)
            x = BatchNorm(name="shortcut_norm")(x, train=False)
        return activation(residual + x)
