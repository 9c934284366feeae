"""BatchNorm with PyTorch's running statistics, over the global batch or over groups of images, and InstanceNorm."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from asccl_jax.errors import InputError

__all__ = [
    "BatchNorm",
    "InstanceNorm",
    "at_least_float32",
]

# The precision of sums: statistics, norms and accumulated products are float32 even where the rest is bfloat16.


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """Returns float64 for float64, else float32.

    >>> at_least_float32(jnp.bfloat16) == jnp.float32, at_least_float32(jnp.float64) == jnp.float64
    (True, True)
    """
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32


class BatchNorm(nn.Module):
    """Normalises channels by statistics of the batch, or by running ones.

    As in PyTorch: the biased variance normalises, the running variance moves towards the unbiased one. The variance is
    the mean squared distance from the mean, as the difference of moments cancels. Statistics are taken in float32 (or
    better) whatever the type of the computation. Running statistics move only in training, and only if the caller
    made the collection "batch_stats" mutable.

    Attributes:
      momentum: Share of the new statistics in the running ones, PyTorch's convention.
      epsilon: Added to the variance.
      group_size: None takes statistics over the whole batch; g takes them over each run of g consecutive images, as a
        device that holds g images would, and moves the running statistics by the mean over groups. A batch of at most
        g images is one group.
      axis_name: Name of the mapped axis under `pmap` or `shard_map`, so that "the whole batch" means that of all
        devices. Leave None under `jit`, sharded or not: there an array is always the global one.
      dtype: Type of the result.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    group_size: int | None = None
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        """Returns the normalised maps; with `train` by statistics of the batch, which also move the running ones."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        exact = x.astype(at_least_float32(x.dtype))
        if not train:
            factor = scale * lax.rsqrt(running_var.value + self.epsilon)
            return _affine(exact, running_mean.value, factor, bias).astype(self.dtype)

        groups, shared_axis = self._grouping(x.shape[0])
        grouped = exact.reshape(groups, x.shape[0] // groups, *x.shape[1:])
        mean = _mean(grouped, shared_axis)
        var = _mean(jnp.square(grouped - mean), shared_axis)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            count = grouped[0, ..., 0].size * (1 if shared_axis is None else lax.axis_size(shared_axis))
            self._move(running_mean, mean)
            self._move(running_var, var * (count / max(count - 1, 1)))
        normalised = _affine(grouped, mean, _wide(scale) * lax.rsqrt(var + self.epsilon), bias)
        return normalised.reshape(x.shape).astype(self.dtype)

    def _grouping(self, batch: int) -> tuple[int, str | None]:
        """Returns how many groups the images of this device make, and the axis a group extends over, if any."""
        devices = 1 if self.axis_name is None else lax.axis_size(self.axis_name)
        size = self.group_size
        if size is None or batch * devices <= size:
            return 1, self.axis_name
        if batch % size:
            where = "" if self.axis_name is None else f" on each of {devices} devices"
            raise InputError(
                f"a batch of {batch} images{where} cannot be split into BatchNorm groups of {size}: choose a batch "
                "size that is a multiple, or another bn_group_size"
            )
        return batch // size, None

    def _move(self, running: nn.Variable, statistic: Array) -> None:
        new = jnp.mean(statistic, axis=(0, 1, 2, 3))
        if self.axis_name is not None:
            new = lax.pmean(new, self.axis_name)
        running.value = ((1 - self.momentum) * running.value + self.momentum * new).astype(running.value.dtype)


class InstanceNorm(nn.Module):
    """Normalises every channel of every image by its own statistics, with neither scale nor bias.

    In training and at test alike, as published. Published checkpoints carry running statistics all the same: handed in
    as the collection "instance_stats" they normalise in place of an image's own or, where the caller made the
    collection mutable, move as PyTorch has them.

    Attributes:
      momentum: Share of the new statistics in the running ones, PyTorch's convention.
      epsilon: Added to the variance.
      dtype: Type of the result; statistics are float32 (or better) whatever it is.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns the normalised maps."""
        exact = x.astype(at_least_float32(x.dtype))
        running = self.has_variable("instance_stats", "mean")
        if running and not self.is_mutable_collection("instance_stats"):
            mean, var = (self._running(name).astype(exact.dtype)[None, None, None] for name in ("mean", "var"))
        else:
            mean = jnp.mean(exact, axis=(1, 2), keepdims=True)
            # The mean squared distance from the mean: the difference of moments cancels.
            var = jnp.mean(jnp.square(exact - mean), axis=(1, 2), keepdims=True)
            if running:
                pixels = x.shape[1] * x.shape[2]
                self._move("mean", mean)
                self._move("var", var * (pixels / max(pixels - 1, 1)))
        return ((exact - mean) * lax.rsqrt(var + self.epsilon)).astype(self.dtype)

    def _move(self, name: str, statistic: Array) -> None:
        new = (1 - self.momentum) * self._running(name) + self.momentum * jnp.mean(statistic, axis=(0, 1, 2))
        self.put_variable("instance_stats", name, new)

    def _running(self, name: str) -> Array:
        running: Array = self.get_variable("instance_stats", name)
        return running


def _mean(grouped: Float[Array, "g b h w c"], axis_name: str | None) -> Float[Array, "g 1 1 1 c"]:
    local = jnp.mean(grouped, axis=(1, 2, 3), keepdims=True)
    return local if axis_name is None else lax.pmean(local, axis_name)


def _wide(vector: Float[Array, " c"]) -> Float[Array, "1 1 1 1 c"]:
    return vector[None, None, None, None]


def _affine(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    if mean.ndim == 1:
        mean, factor = mean[None, None, None], factor[None, None, None]
    return (x - mean) * factor + bias.reshape((1,) * (x.ndim - 1) + (-1,))
