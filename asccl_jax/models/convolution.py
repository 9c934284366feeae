"""Convolution with symmetric padding, transposed or not, and gradients that are fast on CPU."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Float

from asccl_jax.errors import InputError
from asccl_jax.models.normalisation import at_least_float32

__all__ = [
    "DIMENSIONS",
    "FEW_FEATURES",
    "KERNEL_DEVIATION",
    "WIDE_MAP",
    "Convolution",
    "TransposedConvolution",
    "column_by_column",
    "convolve",
    "phase_convolve",
    "shifted_products",
    "transposed_by_phases",
    "transposed_convolve",
    "xla_convolve",
]

# Forms of convolution whose values and gradients are fast on CPU; `convolution.convolve` chooses among them.
#
# XLA's CPU back end is slow at dilated convolutions, three quarters of whose products are with zeros (the input
# gradient of a stride-2 convolution, a transposed convolution), at the kernel gradients of stride 2 and of wide maps
# with few channels, and at wide kernels that end in few channels. Here these are sums of dense products; values agree
# with XLA's up to rounding. Float64 it convolves with plain loops, four to sixty times slower than the matrix products
# of `shifted_products`. GPUs and TPUs do all of it well.

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
"""Axes of maps, kernels and results."""

WIDE_MAP, FEW_FEATURES = 112, 4
"""Rows from which on, and results up to which, a form of its own is the faster one, as measured."""

Edges: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before the first and after the last row, and the same of columns."""


def xla_convolve(image: Array, kernel: Array, stride: int, padding: int | Edges) -> Array:
    """Returns the cross-correlation as XLA has it."""
    return lax.conv_general_dilated(image, kernel, (stride, stride), _edges(padding), dimension_numbers=DIMENSIONS)


def _edges(padding: int | Edges) -> Edges:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def shifted_products(image: Array, kernel: Array, stride: int, padding: int | Edges) -> Array:
    """Returns the cross-correlation as a sum of matrix products, one a kernel element."""
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
def phase_convolve(image: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Returns the cross-correlation; its gradients are in the forms that are fast on CPU, reverse mode only."""
    return xla_convolve(image, kernel, stride, padding)


def _phase_forward(image: Array, kernel: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return xla_convolve(image, kernel, stride, padding), (image, kernel)


def _phase_backward(stride: int, padding: int, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    image, kernel = saved
    height, channels, side = image.shape[1], image.shape[3], kernel.shape[0]
    if stride == 2:
        image_cotangent = transposed_by_phases(cotangent, kernel, image.shape, padding, xla_convolve)
    else:
        (image_cotangent,) = jax.linear_transpose(lambda x: xla_convolve(x, kernel, stride, padding), image)(cotangent)
    if side == 3 and channels <= 64 and height >= WIDE_MAP:
        kernel_cotangent = _kernel_cotangent_by_rows(image, cotangent, side, stride, padding)
    elif stride == 2:
        kernel_cotangent = _kernel_cotangent_of_squares(image, cotangent, side, padding)
    else:
        kernel_cotangent = _xla_kernel_cotangent(image, cotangent, side, padding)
    return image_cotangent, kernel_cotangent


phase_convolve.defvjp(_phase_forward, _phase_backward)


def transposed_by_phases(
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


def column_by_column(image: Array, kernel: Array, padding: int) -> Array:
    """Returns the convolution of stride 1 as a sum over the kernel's columns, which are convolved as more features."""
    side, _, channels, features = kernel.shape
    columns = image.shape[2] + 2 * padding - side + 1
    upright = kernel.swapaxes(1, 2).reshape(side, 1, channels, side * features)
    by_column = xla_convolve(image, upright, 1, ((padding, padding), (padding, padding)))
    parts = [
        by_column[:, :, column : column + columns, column * features : (column + 1) * features]
        for column in range(side)
    ]
    return functools.reduce(jnp.add, parts)


def _xla_kernel_cotangent(image: Array, cotangent: Array, side: int, padding: int | Edges) -> Array:
    """Returns the gradient of the kernel of stride 1."""
    kernel = jax.ShapeDtypeStruct((side, side, image.shape[3], cotangent.shape[3]), image.dtype)
    (kernel_cotangent,) = jax.linear_transpose(lambda w: xla_convolve(image, w, 1, padding), kernel)(cotangent)
    return kernel_cotangent


def _kernel_cotangent_of_squares(image: Array, cotangent: Array, side: int, padding: int) -> Array:
    """Returns the gradient of a kernel of stride 2: that of half the side, of stride 1, on squares of 2x2 pixels."""
    batch, height, width, channels = image.shape
    half = -(-side // 2)
    rows, columns = (results + half - 1 for results in cotangent.shape[1:3])
    # Pixels that no result sees are cut; a kernel of odd side gets a last row and column, which are dropped again.
    edges = [(padding, 2 * rows - height - padding, 0), (padding, 2 * columns - width - padding, 0)]
    padded = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    squares = padded.reshape(batch, rows, 2, columns, 2, channels).swapaxes(2, 3)
    squares = squares.reshape(batch, rows, columns, 4 * channels)
    kernel_cotangent = _xla_kernel_cotangent(squares, cotangent, half, 0)
    apart = kernel_cotangent.reshape(half, half, 2, 2, channels, -1).swapaxes(1, 2)
    return apart.reshape(2 * half, 2 * half, channels, -1)[:side, :side]


def _kernel_cotangent_by_rows(image: Array, cotangent: Array, side: int, stride: int, padding: int) -> Array:
    """Returns the gradient of a kernel, one output row at a time: an im2col tile of a row stays in cache."""
    channels, features = image.shape[3], cotangent.shape[3]
    rows, columns = cotangent.shape[1:3]
    accumulator = at_least_float32(image.dtype)
    padded = jnp.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # Parts of the batch that devices may hold are summed apart: in one sum they would have to meet at every row.
    parts = math.gcd(image.shape[0], jax.device_count())
    sums = "nk,nd->kd" if parts == 1 else "pnk,pnd->pkd"
    several = () if parts == 1 else (parts,)

    def add_row(total: Array, row: Array) -> tuple[Array, None]:
        window = lax.dynamic_slice_in_dim(padded, stride * row, side, axis=1)
        taps = [
            window[:, down, right : right + stride * (columns - 1) + 1 : stride]
            for down in range(side)
            for right in range(side)
        ]
        tile = jnp.concatenate(taps, axis=-1).reshape(*several, -1, side * side * channels)
        dy = lax.dynamic_index_in_dim(cotangent, row, axis=1, keepdims=False).reshape(*several, -1, features)
        return total + jnp.einsum(sums, tile, dy, preferred_element_type=accumulator), None

    # From zeros, not from the first row: the row's code, slow to compile, would be there twice.
    nothing = jnp.zeros((*several, side * side * channels, features), accumulator)
    total, _ = lax.scan(add_row, nothing, jnp.arange(rows))
    total = total if parts == 1 else total.sum(axis=0)
    return total.reshape(side, side, channels, features).astype(image.dtype)


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
