"""ArcFace: the IResNet trunk with the linear layer that makes a face's identity of its last map."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from asccl_jax.models.conv_norm import vector_norm
from asccl_jax.models.iresnet import IResNet
from asccl_jax.models.normalisation import BatchNorm

__all__ = ["ArcFace"]


class ArcFace(nn.Module):
    """IResNet with its embedding; evaluated only.

    Attributes:
      stage_blocks: Residual blocks of each stage: (3, 4, 14, 3) of depth 50, (3, 13, 30, 3) of depth 100.
      stage_widths: Channels of each stage.
      embedding: Numbers that come out.
      image_size: Side of the pictures, a multiple of 16, which the linear layer is made for.
    """

    stage_blocks: tuple[int, int, int, int] = (3, 4, 14, 3)
    stage_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    embedding: int = 512
    image_size: int = 112

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what it takes, without the batch."""
        return ((self.image_size, self.image_size, 3),)

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """Returns embeddings, not of unit length, of aligned RGB faces in [-1, 1]."""
        x = IResNet(self.stage_blocks, self.stage_widths, name="trunk")(image, train=False)[-1]
        x = BatchNorm(name="map_norm")(x, train=False)
        x = nn.Dense(self.embedding, name="embedding")(x.reshape(x.shape[0], -1))
        return vector_norm(x, name="embedding_norm")
