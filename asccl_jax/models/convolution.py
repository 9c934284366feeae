"""Convolution with symmetric padding, transposed or not, and gradients that are fast on CPU.

XLA's CPU back end is slow at dilated convolutions, three quarters of whose products are with zeros (the input gradient
of a stride-2 convolution, a transposed convolution), and at the kernel gradient of wide maps with few channels. The
"phase" implementation gives them as sums of dense products; values agree with XLA's up to rounding. Float64 it
convolves with plain loops, four to sixty times slower than the matrix products of "shifts". GPUs and TPUs do all of it
well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from asccl_jax.errors import InputError
from asccl_jax.models.precision import at_least_float32

__all__ = ["KERNEL_DEVIATION", "Convolution", "TransposedConvolution", "convolve", "transposed_convolve"]

KERNEL_DEVIATION = 0.1
"""Standard deviation of fresh kernels, ArcFace's."""

Edges: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before the first and after the last row, and the same of columns."""

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


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
    if implementation == "xla":
        return _xla_convolve(image, kernel, stride, padding)
    # A 1x1 kernel is a slice and a matrix product, whose own gradients are dense already.
    if implementation == "shifts" or kernel.shape[0] == 1:
        return _shifted_products(image, kernel, stride, padding)
    return _phase_convolve(image, kernel, stride, padding)


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
    if implementation == "xla":
        return lax.conv_general_dilated(
            image, kernel, (1, 1), ((1, 2), (1, 2)), lhs_dilation=(2, 2), dimension_numbers=_DIMENSIONS
        )
    batch, height, width, _ = image.shape
    shape = (batch, 2 * height, 2 * width, kernel.shape[3])
    dense = _shifted_products if implementation == "shifts" else _xla_convolve
    return _transposed_by_phases(image, kernel[::-1, ::-1].swapaxes(2, 3), shape, 1, dense)


def _chosen(implementation: str, image: Array) -> str:
    if implementation not in ("auto", "xla", "phase", "shifts"):
        raise InputError(f"conv_implementation={implementation!r}: expected one of auto, xla, phase, shifts")
    if implementation != "auto":
        return implementation
    on_cpu = "shifts" if image.dtype == jnp.float64 else "phase"
    return on_cpu if jax.default_backend() == "cpu" else "xla"


def _xla_convolve(image: Array, kernel: Array, stride: int, padding: int | Edges) -> Array:
    return lax.conv_general_dilated(image, kernel, (stride, stride), _edges(padding), dimension_numbers=_DIMENSIONS)


def _edges(padding: int | Edges) -> Edges:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def _shifted_products(image: Array, kernel: Array, stride: int, padding: int | Edges) -> Array:
    down, right = kernel.shape[:2]
    zero = jnp.zeros((), image.dtype)
    padded = lax.pad(image, zero, [(0, 0, 0), *((*edge, 0) for edge in _edges(padding)), (0, 0, 0)])
    rows, columns = ((side - taps) // stride + 1 for side, taps in zip(padded.shape[1:3], (down, right), strict=True))
    products = (
        jnp.einsum("bhwc,cd->bhwd", _every(stride, padded, row, column, rows, columns), kernel[row, column])
        for row in range(down)
        for column in range(right)
    )
    return functools.reduce(jnp.add, products)


def _every(stride: int, padded: Array, down: int, right: int, rows: int, columns: int) -> Array:
    """Returns the inputs that one kernel element meets."""
    return padded[
        :, down : down + stride * (rows - 1) + 1 : stride, right : right + stride * (columns - 1) + 1 : stride
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _phase_convolve(image: Array, kernel: Array, stride: int, padding: int) -> Array:
    return _xla_convolve(image, kernel, stride, padding)


def _phase_forward(image: Array, kernel: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _xla_convolve(image, kernel, stride, padding), (image, kernel)


def _phase_backward(stride: int, padding: int, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    image, kernel = saved
    height, channels = image.shape[1], image.shape[3]
    if stride == 2:
        image_cotangent = _transposed_by_phases(cotangent, kernel, image.shape, padding, _xla_convolve)
    else:
        (image_cotangent,) = jax.linear_transpose(lambda x: _xla_convolve(x, kernel, stride, padding), image)(cotangent)
    # Where im2col by rows beats XLA's kernel gradient on CPU, as measured.
    if (channels <= 64 and height >= 112) or (stride == 2 and channels <= 128):
        kernel_cotangent = _kernel_cotangent_by_rows(image, cotangent, kernel.shape[0], stride, padding)
    else:
        (kernel_cotangent,) = jax.linear_transpose(lambda w: _xla_convolve(image, w, stride, padding), kernel)(
            cotangent
        )
    return image_cotangent, kernel_cotangent


_phase_convolve.defvjp(_phase_forward, _phase_backward)


def _transposed_by_phases(
    signal: Array, kernel: Array, shape: tuple[int, ...], padding: int, dense: Callable[..., Array]
) -> Array:
    """Returns the transpose of a stride-2 convolution as four dense convolutions.

    With y[i] = sum_k x[2i + k - p] w[k], the transpose is dx[m] = sum_i dy[i] w[m + p - 2i]: even and odd m each see
    every second element of the kernel. In two dimensions that makes four phases, which are interleaved.
    """
    batch, height, width, channels = shape
    transposed = kernel.swapaxes(2, 3)
    rows = [_phase(first, height, signal.shape[1], kernel.shape[0], padding) for first in (0, 1)]
    columns = [_phase(first, width, signal.shape[2], kernel.shape[1], padding) for first in (0, 1)]
    phases = [
        [
            dense(signal, transposed[taps, other_taps][::-1, ::-1], 1, (edge, other_edge))
            for other_taps, other_edge in columns
        ]
        for taps, edge in rows
    ]
    stacked = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)  # b i 2 j 2 c
    full = stacked.reshape(batch, 2 * stacked.shape[1], 2 * stacked.shape[3], channels)
    return full[:, :height, :width]


def _phase(first: int, side: int, signal_side: int, kernel_side: int, padding: int) -> tuple[slice, tuple[int, int]]:
    """Returns which kernel elements the results `first`, `first + 2` and on see, and the signal's padding for them."""
    taps = slice((first + padding) % 2, None, 2)
    count = len(range(kernel_side)[taps])
    # The first result's signal of the tap before all others is this many steps on.
    before = count - 1 - (first + padding) // 2
    return taps, (before, -(-side // 2) - signal_side - before + count - 1)


def _kernel_cotangent_by_rows(image: Array, cotangent: Array, side: int, stride: int, padding: int) -> Array:
    """Returns the gradient of a kernel, one output row at a time: an im2col tile of a row stays in cache."""
    channels, features = image.shape[3], cotangent.shape[3]
    rows, columns = cotangent.shape[1:3]
    padded = jnp.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def row_product(row: Array) -> Array:
        window = lax.dynamic_slice_in_dim(padded, stride * row, side, axis=1)
        taps = [
            window[:, down, right : right + stride * (columns - 1) + 1 : stride]
            for down in range(side)
            for right in range(side)
        ]
        tile = jnp.concatenate(taps, axis=-1)
        dy = lax.dynamic_index_in_dim(cotangent, row, axis=1, keepdims=False)
        accumulator = at_least_float32(image.dtype)
        return jnp.einsum("bwk,bwd->kd", tile, dy, preferred_element_type=accumulator)

    total, _ = lax.scan(
        lambda total, row: (total + row_product(row), None), row_product(jnp.int32(0)), jnp.arange(1, rows)
    )
    return total.reshape(side, side, channels, features).astype(image.dtype)
