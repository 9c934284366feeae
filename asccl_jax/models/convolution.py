"""Convolution with symmetric padding, and gradients that are fast on CPU.

XLA's CPU back end is slow at two convolution gradients: the input gradient of a stride-2 convolution (a dilated
convolution, three quarters of whose products are with zeros) and the kernel gradient of wide maps with few channels.
The "phase" implementation gives both as sums of dense products; values agree with XLA's up to rounding. Float64 it
convolves with plain loops, four to sixty times slower than the matrix products of "shifts". GPUs and TPUs do all of it
well.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from asccl_jax.errors import InputError
from asccl_jax.models.precision import at_least_float32

__all__ = ["KERNEL_DEVIATION", "Convolution", "convolve"]

KERNEL_DEVIATION = 0.1
"""Standard deviation of fresh kernels, ArcFace's."""

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class Convolution(nn.Module):
    """Convolution without bias; kernels are (height, width, in, out), initialised from a normal distribution.

    Attributes:
      features: Output channels.
      kernel_size: Side of the square kernel, 1 or 3; padding is half of it on every edge.
      stride: 1 or 2.
      dtype: Type of the computation; the kernel is stored in float32.
      implementation: "auto", "xla", "phase" or "shifts", see `convolve`.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    implementation: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Returns the convolved maps, of side `ceil(side / stride)`."""
        shape = (self.kernel_size, self.kernel_size, image.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(KERNEL_DEVIATION), shape, jnp.float32)
        return convolve(
            image.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            implementation=self.implementation,
        )


def convolve(
    image: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    *,
    stride: int = 1,
    implementation: str = "auto",
) -> Float[Array, "b h2 w2 d"]:
    """Returns the cross-correlation with zero padding of half a kernel on every edge.

    Args:
      image: Feature maps.
      kernel: Kernel of side 1 or 3.
      stride: 1 or 2.
      implementation: "xla" leaves all to XLA; "phase" takes gradients in the forms that are fast on CPU, supports
        reverse-mode differentiation only, and under `shard_map` needs `check_vma=False`; "shifts" is a sum of matrix
        products, one a kernel element; "auto" takes "xla" on accelerators, on CPU "phase", and "shifts" for float64.

    Raises:
      InputError: Unknown implementation.
    """
    if implementation not in ("auto", "xla", "phase", "shifts"):
        raise InputError(f"conv_implementation={implementation!r}: expected one of auto, xla, phase, shifts")
    if implementation == "auto":
        on_cpu = "shifts" if image.dtype == jnp.float64 else "phase"
        implementation = on_cpu if jax.default_backend() == "cpu" else "xla"
    if implementation == "xla":
        return _xla_convolve(image, kernel, stride)
    # A 1x1 kernel is a slice and a matrix product, whose own gradients are dense already.
    if implementation == "shifts" or kernel.shape[0] == 1:
        return _shifted_products(image, kernel, stride)
    return _phase_convolve(image, kernel, stride)


def _xla_convolve(image: Array, kernel: Array, stride: int) -> Array:
    padding = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        image, kernel, (stride, stride), ((padding, padding), (padding, padding)), dimension_numbers=_DIMENSIONS
    )


def _shifted_products(image: Array, kernel: Array, stride: int) -> Array:
    side = kernel.shape[0]
    padding = side // 2
    rows, columns = -(-image.shape[1] // stride), -(-image.shape[2] // stride)
    padded = jnp.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0))) if padding else image
    products = (
        jnp.einsum("bhwc,cd->bhwd", _every(stride, padded, down, right, rows, columns), kernel[down, right])
        for down in range(side)
        for right in range(side)
    )
    return functools.reduce(jnp.add, products)


def _every(stride: int, padded: Array, down: int, right: int, rows: int, columns: int) -> Array:
    """Returns the inputs that one kernel element meets."""
    return padded[
        :, down : down + stride * (rows - 1) + 1 : stride, right : right + stride * (columns - 1) + 1 : stride
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _phase_convolve(image: Array, kernel: Array, stride: int) -> Array:
    return _xla_convolve(image, kernel, stride)


def _phase_forward(image: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _xla_convolve(image, kernel, stride), (image, kernel)


def _phase_backward(stride: int, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    image, kernel = saved
    height, channels = image.shape[1], image.shape[3]
    if stride == 2:
        image_cotangent = _image_cotangent_by_phases(cotangent, kernel, image.shape)
    else:
        (image_cotangent,) = jax.linear_transpose(lambda x: _xla_convolve(x, kernel, stride), image)(cotangent)
    # Where im2col by rows beats XLA's kernel gradient on CPU, as measured.
    if (channels <= 64 and height >= 112) or (stride == 2 and channels <= 128):
        kernel_cotangent = _kernel_cotangent_by_rows(image, cotangent, stride)
    else:
        (kernel_cotangent,) = jax.linear_transpose(lambda w: _xla_convolve(image, w, stride), kernel)(cotangent)
    return image_cotangent, kernel_cotangent


_phase_convolve.defvjp(_phase_forward, _phase_backward)


def _image_cotangent_by_phases(cotangent: Array, kernel: Array, shape: tuple[int, ...]) -> Array:
    """Returns the input gradient of a 3x3, stride 2 convolution as four dense convolutions.

    With y[i] = sum_k x[2i + k - 1] w[k], even inputs see only w[1]: dx[2j] = dy[j] w[1]; odd inputs see the two others:
    dx[2j + 1] = dy[j] w[2] + dy[j + 1] w[0]. In two dimensions that makes four phases, which are interleaved.
    """
    transposed = kernel.swapaxes(2, 3)
    taps = (slice(1, 2), slice(None, None, -2))  # of the even and the odd phase: [w1] and [w2, w0]
    padding = ((0, 0), (0, 1))
    rows = [
        [
            lax.conv_general_dilated(
                cotangent,
                transposed[taps[row], taps[column]],
                (1, 1),
                (padding[row], padding[column]),
                dimension_numbers=_DIMENSIONS,
            )
            for column in (0, 1)
        ]
        for row in (0, 1)
    ]
    batch, height, width, channels = shape
    stacked = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)  # b i 2 j 2 c
    full = stacked.reshape(batch, 2 * cotangent.shape[1], 2 * cotangent.shape[2], channels)
    return full[:, :height, :width]


def _kernel_cotangent_by_rows(image: Array, cotangent: Array, stride: int) -> Array:
    """Returns the gradient of a 3x3 kernel, one output row at a time: an im2col tile of a row stays in cache."""
    channels, features = image.shape[3], cotangent.shape[3]
    rows, columns = cotangent.shape[1:3]
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def row_product(row: Array) -> Array:
        window = lax.dynamic_slice_in_dim(padded, stride * row, 3, axis=1)
        taps = [
            window[:, down, right : right + stride * (columns - 1) + 1 : stride]
            for down in range(3)
            for right in range(3)
        ]
        tile = jnp.concatenate(taps, axis=-1)
        dy = lax.dynamic_index_in_dim(cotangent, row, axis=1, keepdims=False)
        accumulator = at_least_float32(image.dtype)
        return jnp.einsum("bwk,bwd->kd", tile, dy, preferred_element_type=accumulator)

    total, _ = lax.scan(
        lambda total, row: (total + row_product(row), None), row_product(jnp.int32(0)), jnp.arange(1, rows)
    )
    return total.reshape(3, 3, channels, features).astype(image.dtype)
