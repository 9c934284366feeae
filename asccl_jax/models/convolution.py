"""Convolution with symmetric padding, transposed or not, and gradients that are fast on CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Float

from asccl_jax.errors import InputError
from asccl_jax.models.convolution_forms import (
    DIMENSIONS,
    FEW_FEATURES,
    WIDE_MAP,
    column_by_column,
    phase_convolve,
    shifted_products,
    transposed_by_phases,
    xla_convolve,
)

__all__ = ["KERNEL_DEVIATION", "Convolution", "TransposedConvolution", "convolve", "transposed_convolve"]

KERNEL_DEVIATION = 0.1
"""Standard deviation of fresh kernels, ArcFace's."""


class Convolution(nn.Module):
    """Convolution; kernels are (height, width, in, out), initialised from a normal distribution.

    Attributes:
      features: Output channels.
      kernel_size: Side of the square kernel.
      stride: 1 or 2.
      dtype: Type of the computation; kernel and bias are stored in float32.
      implementation: "auto", "xla", "phase" or "shifts", see `convolve`.
      padding: Pixels added on every edge; None adds half a kernel.
      reflect: Whether these mirror the map, its border not repeated, rather than being zero.
      use_bias: Whether a bias is added, initialised as PyTorch does.
      deviation: Standard deviation of fresh kernels.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    implementation: str = "auto"
    padding: int | None = None
    reflect: bool = False
    use_bias: bool = False
    deviation: float = KERNEL_DEVIATION

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Returns the convolved maps, with the default padding of side `ceil(side / stride)`."""
        shape = (self.kernel_size, self.kernel_size, image.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(self.deviation), shape, jnp.float32)
        padding = self.kernel_size // 2 if self.padding is None else self.padding
        image = image.astype(self.dtype)
        if self.reflect:
            image = jnp.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
        maps = convolve(
            image,
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=0 if self.reflect else padding,
            implementation=self.implementation,
        )
        return _with_bias(self, maps, math.prod(shape[:3])) if self.use_bias else maps


class TransposedConvolution(nn.Module):
    """Transposed 3x3 convolution of stride 2 with bias, which doubles the side.

    Its kernel (height, width, in, out) is the one `flax.linen.ConvTranspose` would have: PyTorch's turned by half a
    circle.

    Attributes:
      features: Output channels.
      dtype: Type of the computation; kernel and bias are stored in float32.
      implementation: "auto", "xla", "phase" or "shifts", see `transposed_convolve`.
      deviation: Standard deviation of fresh kernels.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    implementation: str = "auto"
    deviation: float = KERNEL_DEVIATION

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Returns maps of twice the side."""
        shape = (3, 3, image.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(self.deviation), shape, jnp.float32)
        maps = transposed_convolve(
            image.astype(self.dtype), kernel.astype(self.dtype), implementation=self.implementation
        )
        # PyTorch takes the outputs of a transposed convolution for its inputs here.
        return _with_bias(self, maps, 9 * self.features)


def _with_bias(module: nn.Module, maps: Array, fan_in: int) -> Array:
    def uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / math.sqrt(fan_in)

    bias = module.param("bias", uniform, maps.shape[-1:], jnp.float32)
    return maps + bias.astype(maps.dtype)[None, None, None]


def convolve(
    image: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    *,
    stride: int = 1,
    padding: int | None = None,
    implementation: str = "auto",
) -> Float[Array, "b h2 w2 d"]:
    """Returns the cross-correlation with zero padding on every edge.

    Args:
      image: Feature maps.
      kernel: Square kernel.
      stride: 1 or 2.
      padding: Zeros on every edge, less than the kernel's side; None takes half a kernel.
      implementation: "xla" leaves all to XLA; "phase" takes gradients in the forms that are fast on CPU, supports
        reverse-mode differentiation only, and under `shard_map` needs `check_vma=False`; "shifts" is a sum of matrix
        products, one a kernel element; "auto" takes "xla" on accelerators, on CPU "phase", and "shifts" for float64.

    Raises:
      InputError: Unknown implementation.
    """
    implementation = _chosen(implementation, image)
    padding = kernel.shape[0] // 2 if padding is None else padding
    return _with_automatic_axes(
        lambda image, kernel: _convolved(image, kernel, stride, padding, implementation), image, kernel
    )


def _convolved(image: Array, kernel: Array, stride: int, padding: int, implementation: str) -> Array:
    if implementation == "xla":
        return xla_convolve(image, kernel, stride, padding)
    # A 1x1 kernel is a slice and a matrix product, whose own gradients are dense already.
    if implementation == "shifts" or kernel.shape[0] == 1:
        return shifted_products(image, kernel, stride, padding)
    if stride == 1 and kernel.shape[3] <= FEW_FEATURES and image.shape[1] >= WIDE_MAP:
        return column_by_column(image, kernel, padding)
    return phase_convolve(image, kernel, stride, padding)


def transposed_convolve(
    image: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], *, implementation: str = "auto"
) -> Float[Array, "b h2 w2 d"]:
    """Returns the transposed convolution of stride 2 that doubles the side: padding 1, output padding 1.

    Args:
      image: Feature maps.
      kernel: Kernel as it meets the image whose pixels zeros were put between.
      implementation: See `convolve`; "phase" and "shifts" are four dense convolutions, interleaved.

    Raises:
      InputError: Unknown implementation.
    """
    implementation = _chosen(implementation, image)
    return _with_automatic_axes(
        lambda image, kernel: _transposed_convolved(image, kernel, implementation), image, kernel
    )


def _transposed_convolved(image: Array, kernel: Array, implementation: str) -> Array:
    if implementation == "xla":
        return lax.conv_general_dilated(
            image, kernel, (1, 1), ((1, 2), (1, 2)), lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
        )
    batch, height, width, _ = image.shape
    shape = (batch, 2 * height, 2 * width, kernel.shape[3])
    dense = shifted_products if implementation == "shifts" else xla_convolve
    return transposed_by_phases(image, kernel[::-1, ::-1].swapaxes(2, 3), shape, 1, dense)


def _with_automatic_axes(convolved: Callable[[Array, Array], Array], image: Array, kernel: Array) -> Array:
    """Returns a convolution whose batch lies over devices as the image's does.

    Axes of a mesh are Explicit by default of `jax.make_mesh`: shardings are then part of types, and JAX knows none for
    a kernel's gradient, a sum over devices, nor for the reshapes of the forms. Here they are the compiler's.
    """
    shardings = [jax.typeof(array).sharding for array in (image, kernel)]
    explicit = next((sharding.mesh for sharding in shardings if sharding.mesh.explicit_axes), None)
    if explicit is None:
        return convolved(image, kernel)
    batch = NamedSharding(explicit, PartitionSpec(*shardings[0].spec[:1]))
    return jax.sharding.auto_axes(convolved, axes=explicit.explicit_axes, out_sharding=batch)(image, kernel)


def _chosen(implementation: str, image: Array) -> str:
    if implementation not in ("auto", "xla", "phase", "shifts"):
        raise InputError(f"conv_implementation={implementation!r}: expected one of auto, xla, phase, shifts")
    if implementation != "auto":
        return implementation
    on_cpu = "shifts" if image.dtype == jnp.float64 else "phase"
    return on_cpu if jax.default_backend() == "cpu" else "xla"
