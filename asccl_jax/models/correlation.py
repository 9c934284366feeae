"""The correlation metric: an IResNet trunk and, per stage, a small head that embeds local disparities."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Key, Shaped, UInt8

from asccl_jax.models.convolution import KERNEL_DEVIATION
from asccl_jax.models.iresnet import IResNet
from asccl_jax.models.normalisation import at_least_float32
from asccl_jax.norms import unit_vectors
from asccl_jax.settings import MetricSettings
from asccl_jax.trees import cut_vector
from asccl_jax.types import Variables, check_image

__all__ = ["CorrelationMetric", "FrozenMetric", "init_variables", "prepare_images", "resize_images"]


class ProjectionHead(nn.Module):
    """Linear, ReLU, linear to a quarter of the width, then unit length."""

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, disparities: Float[Array, "b p c"]) -> Float[Array, "b p e"]:
        """Returns unit embeddings, in float32 or better."""
        x = self._linear("hidden", self.width)(disparities)
        x = self._linear("output", self.width // 4)(nn.relu(x))
        # Unit vectors feed a softmax at temperature 0.07: they are not left to bfloat16.
        return unit_vectors(x.astype(at_least_float32(self.dtype)))

    def _linear(self, name: str, features: int) -> nn.Dense:
        def uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
            bound = _head_bound(self.width)
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(features, dtype=self.dtype, kernel_init=uniform, bias_init=uniform, name=name)


def _head_bound(width: int) -> float:
    """Returns the range of a fresh head's weights and biases, PyTorch's default for `Linear`."""
    return width**-0.5


class ProjectionHeads(nn.Module):
    """One head a stage; query and key share it."""

    stage_widths: tuple[int, int, int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, level: int, disparities: Float[Array, "b p c"]) -> Float[Array, "b p e"]:
        """Returns unit embeddings of the disparities of stage `level`, 0..3."""
        return ProjectionHead(self.stage_widths[level], self.dtype, name=f"stage{level + 1}")(disparities)


class CorrelationMetric(nn.Module):
    """Trunk and heads. The loss lives in `asccl_jax.losses`, which takes their results.

    Attributes:
      settings: Network and conventions of the metric.
      dtype: Type of the computation, float32 or bfloat16. Weights, statistics, feature maps handed out and embeddings
        are float32 either way.
      axis_name: Mapped axis under `pmap` or `shard_map`, see `normalisation.BatchNorm`.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    settings: MetricSettings
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    conv_implementation: str = "auto"

    def setup(self) -> None:
        """Makes the trunk and the heads."""
        self.trunk = IResNet(
            stage_blocks=self.settings.blocks,
            stage_widths=self.settings.stage_widths,
            dtype=self.dtype,
            bn_group_size=self.settings.bn_group_size,
            axis_name=self.axis_name,
            conv_implementation=self.conv_implementation,
        )
        self.heads = ProjectionHeads(self.settings.stage_widths, self.dtype)

    def features(self, image: Float[Array, "b h w 3"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Returns the feature maps of the four stages.

        Args:
          image: RGB in [-1, 1], of any size; turned to the order the network was trained on here and nowhere else.
          train: Whether BatchNorm uses the statistics of this batch; they move the running ones if "batch_stats" is
            mutable.
        """
        if self.settings.channel_order == "bgr":
            image = image[..., ::-1]
        maps = self.trunk(image, train=train)
        return tuple(features.astype(at_least_float32(self.dtype)) for features in maps)

    def embed(self, level: int, disparities: Float[Array, "b p c"]) -> Float[Array, "b p e"]:
        """Returns unit embeddings of the disparities of stage `level`, 0..3."""
        return self.heads(level, disparities)

    def __call__(self, image: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _"], ...]:
        """Returns embeddings of every cell of every stage's map; visits all weights, so `init` makes them all."""
        maps = self.features(image, train=False)
        return tuple(self.embed(level, x.reshape(x.shape[0], -1, x.shape[-1])) for level, x in enumerate(maps))


def init_variables(settings: MetricSettings, key: Key[Array, ""]) -> Variables:
    """Returns fresh weights and statistics: collections "params" and "batch_stats", each with trunk (and heads).

    >>> widths = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(4, 4, 8, 8))
    >>> variables = init_variables(widths, jax.random.key(0))
    >>> sorted(variables), sorted(variables["params"])
    (['batch_stats', 'params'], ['heads', 'trunk'])
    """
    return _draw_variables(settings, key)


@functools.partial(jax.jit, static_argnums=0)
def _draw_variables(settings: MetricSettings, key: Key[Array, ""]) -> Variables:
    # No weight depends on the image's size; a small one keeps this quick.
    fresh = dict(CorrelationMetric(settings).init(key, jnp.zeros((1, 33, 33, 3), jnp.float32)))
    # XLA takes a second or more to compile each random draw of the modules. Two draws, cut to pieces, have the same
    # distribution, and the modules' own, unused then, are compiled away.
    trunk_key, heads_key = jax.random.split(key)
    trunk, heads = fresh["params"]["trunk"], fresh["params"]["heads"]
    normal = cut_vector(jax.random.normal(trunk_key, (_size(trunk),)), trunk)
    uniform = cut_vector(jax.random.uniform(heads_key, (_size(heads),), minval=-1.0, maxval=1.0), heads)
    trunk = jax.tree_util.tree_map_with_path(
        lambda path, leaf, noise: KERNEL_DEVIATION * noise if path[-1].key == "kernel" else leaf, trunk, normal
    )
    heads = {
        stage: jax.tree.map(lambda noise, width=head["hidden"]["bias"].size: _head_bound(width) * noise, uniform[stage])
        for stage, head in heads.items()
    }
    return {"params": {"trunk": trunk, "heads": heads}, "batch_stats": fresh["batch_stats"]}


def _size(tree: Variables) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@struct.dataclass
class FrozenMetric:
    """A trained metric used as a loss: its weights receive no gradient and its statistics never move.

    A pytree, so that it can be passed through `jit` and `vmap`.

    Attributes:
      variables: Collections "params" and "batch_stats".
      settings: Network and conventions of the metric.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    variables: Variables
    settings: MetricSettings = struct.field(pytree_node=False)
    dtype: DTypeLike = struct.field(pytree_node=False, default=jnp.float32)
    conv_implementation: str = struct.field(pytree_node=False, default="auto")

    def features(self, image: Shaped[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Returns the feature maps of the four stages.

        Args:
          image: RGB in [-1, 1], of any size; resized to the size the metric was trained on, antialiased where it
            shrinks, so that every pixel has a say.

        Raises:
          InputError: Another shape, whole numbers, or values that are no [-1, 1], as far as they are known when this is
            traced.
        """
        check_image(image, "image")
        image = resize_images(image, self.settings.image_size)
        # Upstream: renderer/ never puts the metric in eval mode, so it normalises by the generated frames' statistics
        # and its running ones drift. "batch" does the former; nothing here does the latter.
        train = self.settings.frozen_statistics == "batch"
        return self._apply("features", image, train=train)

    def embed(self, level: int, disparities: Float[Array, "b p c"]) -> Float[Array, "b p e"]:
        """Returns unit embeddings of the disparities of stage `level`, 0..3."""
        return self._apply("embed", level, disparities)

    def _apply(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        # A frozen metric takes batch statistics over whatever it is given at once, never over training's groups.
        settings = dataclasses.replace(self.settings, bn_group_size=None)
        module = CorrelationMetric(settings, dtype=self.dtype, conv_implementation=self.conv_implementation)
        # Cuts the gradient of the metric's weights: a supervisor is not to be moved by what it supervises.
        return module.apply(lax.stop_gradient(self.variables), *arguments, method=method, **keywords)


def prepare_images(image_u8: UInt8[Array, "b h w 3"], settings: MetricSettings) -> Float[Array, "b s s 3"]:
    """Returns stored images as a metric is trained and evaluated on them: float32 RGB in [-1, 1], of its size."""
    antialias = settings.resizing == "antialiased"
    return resize_images(image_u8.astype(jnp.float32) / 127.5 - 1.0, settings.image_size, antialias=antialias)


def resize_images(
    image: Float[Array, "b h w 3"], image_size: int, *, antialias: bool = True
) -> Float[Array, "b s s 3"]:
    """Returns images of side `image_size`, bilinear with half-pixel centres.

    Args:
      image: Images of any size.
      image_size: Side wanted.
      antialias: Whether the filter widens to the step where images shrink. Without it pixels between the samples count
        for nothing and get no gradient.
    """
    batch, height, width, channels = image.shape
    if (height, width) == (image_size, image_size):
        return image
    return jax.image.resize(image, (batch, image_size, image_size, channels), "bilinear", antialias=antialias)
