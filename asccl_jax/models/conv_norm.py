"""A convolution of any kernel with its BatchNorm by running statistics, as networks have it that are only evaluated."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from asccl_jax.models.normalisation import BatchNorm

__all__ = ["ConvNorm", "max_pool", "vector_norm"]


class ConvNorm(nn.Module):
    """Convolution with zeros around, BatchNorm by running statistics, rectifier if wanted.

    Attributes:
      features: Output channels.
      kernel: Height and width of the kernel.
      stride: Step of both axes.
      padding: Zeros on every edge.
      groups: Runs of channels that are convolved by themselves.
      dilation: Distance between neighbours in the kernel.
      use_bias: Whether the convolution has a bias.
      rectify: Whether a rectifier follows.
    """

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: int = 0
    groups: int = 1
    dilation: int = 1
    use_bias: bool = False
    rectify: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Returns the normalised maps."""
        x = nn.Conv(
            self.features,
            self.kernel,
            (self.stride, self.stride),
            # Given, not "SAME": that would pad an even side on one edge only where the stride is 2.
            padding=[(self.padding, self.padding)] * 2,
            feature_group_count=self.groups,
            kernel_dilation=(self.dilation, self.dilation),
            use_bias=self.use_bias,
            name="conv",
        )(x)
        x = BatchNorm(name="norm")(x, train=False)
        return nn.relu(x) if self.rectify else x


def max_pool(
    x: Float[Array, "b h w c"], side: int, stride: int | tuple[int, int], *, padding: int = 0
) -> Float[Array, "b h2 w2 c"]:
    """Returns the largest value of each square; what lies outside the map never is."""
    strides = (stride, stride) if isinstance(stride, int) else stride
    return nn.max_pool(x, (side, side), strides, padding=[(padding, padding)] * 2)


def vector_norm(x: Float[Array, "b c"], *, name: str) -> Float[Array, "b c"]:
    """Returns vectors normalised by the running statistics of a BatchNorm that is made under this name."""
    return jnp.squeeze(BatchNorm(name=name)(x[:, None, None], train=False), (1, 2))
