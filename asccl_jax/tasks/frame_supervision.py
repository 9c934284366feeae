"""What frozen networks say of generated frames beside the real ones: the correlation metric and a perceptual loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Key

from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import FrozenMetric
from asccl_jax.geometry.face_crop import crop_faces
from asccl_jax.losses.contrastive import correlation_loss
from asccl_jax.losses.perceptual import STAGE_WEIGHTS, VGG_WEIGHTS, perceptual_distance, relative_distance
from asccl_jax.models.correlation import CorrelationMetric
from asccl_jax.models.vgg import Vgg
from asccl_jax.sampling import sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks import Scalars
from asccl_jax.types import Locations, Variables

__all__ = ["FrameSupervision", "Perceptual", "Scene", "VggDistance"]

Perceptual: TypeAlias = Callable[[Float[Array, "n h w 3"], Float[Array, "n h w 3"]], Float[Array, ""]]
"""Distance of generated frames from real ones, both RGB in [-1, 1]; its gradient goes to the generated ones."""

_Maps: TypeAlias = tuple[Array, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class VggDistance:
    """The published perceptual loss: weighted L1 distances of VGG-19's maps; a pytree of its weights.

    Attributes:
      vgg: The network with its weights.
    """

    vgg: Vgg

    def __call__(self, fake: Float[Array, "n h w 3"], real: Float[Array, "n h w 3"]) -> Float[Array, ""]:
        """Returns the distance; see `perceptual_distance`."""
        # One after the other: a joint batch would carry the real frames through the backward pass.
        return perceptual_distance(self.vgg.features(fake), self.vgg.features(real), VGG_WEIGHTS)


@no_type_check  # a tree map puts axes, shapes and None where arrays were
@struct.dataclass
class Scene:
    """Where generated frames belong, for a metric that was trained on crops of whole frames.

    Attributes:
      image: The real frames with their background, RGB in [-1, 1].
      mask: Where generated frames are put into them, 0..1.
      face_box: Borders x0, y0, x1, y1 of the real faces in pixels, see `geometry.face_box`.
    """

    image: Float[Array, "n h w 3"]
    mask: Float[Array, "n h w 1"]
    face_box: Float[Array, "n 4"]


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSupervision:
    """Frozen networks that judge frames; a term whose network is absent or whose weight is 0 is not computed.

    A pytree of the networks.

    Attributes:
      metric: The correlation metric, with generated frames as queries and real ones as keys.
      metric_weight: Weight of the metric's loss.
      perceptual: A perceptual loss, such as `VggDistance`, or "trunk": the distance of the metric's own feature maps,
        for those who have no VGG-19. Where the metric's loss is taken too, both share one pass through the trunk.
      perceptual_weight: Weight of the perceptual loss.
      compat: "paper" shows the metric what it was trained on: generated frames put into the real ones, and the real
        ones, both cut to the box of the real face, at the metric's size and normalised by its fixed statistics.
        "released" does what the public code does: masked frames of their own size, RGB whatever the metric was trained
        on, statistics of the frames, by which the running ones move, and the released form of the loss.
    """

    metric: FrozenMetric | None = None
    metric_weight: float = 1.0
    perceptual: Perceptual | Literal["trunk"] | None = None
    perceptual_weight: float = 10.0
    compat: Literal["paper", "released"] = "paper"

    def __post_init__(self) -> None:
        if self.compat not in ("paper", "released"):
            raise InputError(f"compat={self.compat!r}: expected paper or released")
        for name in ("metric_weight", "perceptual_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name}={getattr(self, name)}: expected a number of at least 0")
        if self.perceptual == "trunk" and self.metric is None:
            raise InputError("the perceptual loss is to come from the metric's trunk, but there is no metric")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self._correlates or self._perceives)

    def statistics(self) -> Variables:
        """Returns the metric's statistics where they move, for the training state; else nothing."""
        if self.compat == "paper" or self.metric is None or not self._reads_trunk:
            return {}
        return jax.tree.map(jnp.asarray, self.metric.variables["batch_stats"])

    def __call__(
        self,
        fake: Float[Array, "n h w 3"],
        real: Float[Array, "n h w 3"],
        statistics: Variables,
        key: Key[Array, ""],
        *,
        scene: Scene | None = None,
        locations: Locations | None = None,
        axis_name: str | None = None,
    ) -> tuple[Float[Array, ""], tuple[Scalars, Variables]]:
        """Returns the weighted sum of the terms, each of them without its weight, and the statistics after it.

        Args:
          fake: Generated frames, RGB in [-1, 1]; the gradient goes to them.
          real: The real frames in their places, masked alike.
          statistics: See the method of that name.
          key: Draws the locations at which regions are compared; all frames share them.
          scene: Where the frames belong; the metric's "paper" form needs it.
          locations: Replaces the drawn locations.
          axis_name: Mapped axis under `pmap`, over which the frames' statistics are taken ("released").

        Raises:
          InputError: The metric is asked in its "paper" form without a scene.
        """
        # Cuts the target's gradient: only what is generated is pulled.
        real = lax.stop_gradient(real)
        terms: Scalars = {}
        if self.metric is not None and self._reads_trunk:
            shown_fake, shown_real = self._shown(self.metric, fake, real, scene)
            fake_maps, statistics = self._features(self.metric, shown_fake, statistics, axis_name)
            real_maps, statistics = self._features(self.metric, shown_real, statistics, axis_name)
            if self._correlates:
                terms["metric"] = self._correlation(self.metric, fake_maps, real_maps, key, locations)
            if self._perceives and self.perceptual == "trunk":
                terms["perceptual"] = relative_distance(fake_maps, real_maps, STAGE_WEIGHTS)
        if self._perceives and callable(self.perceptual):
            terms["perceptual"] = self.perceptual(fake, real)
        weights = {"metric": self.metric_weight, "perceptual": self.perceptual_weight}
        total = sum((weights[name] * value for name, value in terms.items()), start=jnp.zeros((), fake.dtype))
        return total, (terms, lax.stop_gradient(statistics))

    @property
    def _correlates(self) -> bool:
        return self.metric is not None and self.metric_weight > 0

    @property
    def _perceives(self) -> bool:
        return self.perceptual is not None and self.perceptual_weight > 0

    @property
    def _reads_trunk(self) -> bool:
        return self._correlates or (self._perceives and self.perceptual == "trunk")

    def _settings(self, metric: FrozenMetric) -> MetricSettings:
        if self.compat == "paper":
            return dataclasses.replace(metric.settings, frozen_statistics="running")
        # Upstream: renderer/models/head2head_model.py feeds RGB to a metric that was trained on BGR.
        return dataclasses.replace(
            metric.settings,
            weighting="global",
            weight_gradient="flows",
            border="wrap",
            mask_same_centre=False,
            channel_order="rgb",
            bn_group_size=None,
        )

    def _shown(self, metric: FrozenMetric, fake: Array, real: Array, scene: Scene | None) -> tuple[Array, Array]:
        """Returns generated and real frames as the metric looks at them."""
        if self.compat == "released":
            return fake, real
        if scene is None:
            raise InputError('the metric\'s "paper" form needs the scene: whole frames, masks and boxes of the faces')
        inserted = fake * scene.mask + scene.image * (1 - scene.mask)
        # Cuts the target's gradient, see above.
        images = inserted, lax.stop_gradient(scene.image)
        cut = [crop_faces(image, scene.face_box, metric.settings.image_size) for image in images]
        return cut[0], cut[1]

    def _features(
        self, metric: FrozenMetric, image: Array, statistics: Variables, axis_name: str | None
    ) -> tuple[_Maps, Variables]:
        settings = self._settings(metric)
        if self.compat == "paper":
            return dataclasses.replace(metric, settings=settings).features(image), statistics
        # Upstream: renderer/models/head2head_model.py freezes the metric's weights but never calls `eval()`.
        module = CorrelationMetric(
            settings, dtype=metric.dtype, axis_name=axis_name, conv_implementation=metric.conv_implementation
        )
        variables = {"params": metric.variables["params"], "batch_stats": statistics}
        # Cuts the gradient of the metric's weights: a supervisor is not to be moved by what it supervises.
        variables = lax.stop_gradient(variables)
        maps, moved = module.apply(variables, image, train=True, method="features", mutable=["batch_stats"])
        return maps, moved["batch_stats"]

    def _correlation(
        self, metric: FrozenMetric, fake: _Maps, real: _Maps, key: Key[Array, ""], locations: Locations | None
    ) -> Float[Array, ""]:
        settings = self._settings(metric)
        if locations is None:
            sizes = tuple(features.shape[1] for features in fake)
            locations = sample_locations(key, sizes, settings.centre_counts, border=settings.border)
        embed: Any = metric.embed
        loss, _ = correlation_loss(fake, real, embed, locations, settings)
        return loss


def _flatten(supervision: FrameSupervision) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
    named = supervision.perceptual if isinstance(supervision.perceptual, str) else None
    networks = supervision.metric, None if named else supervision.perceptual
    return networks, (supervision.metric_weight, named, supervision.perceptual_weight, supervision.compat)


def _unflatten(fixed: tuple[Any, ...], networks: tuple[Any, Any]) -> FrameSupervision:
    metric_weight, named, perceptual_weight, compat = fixed
    metric, perceptual = networks
    return FrameSupervision(metric, metric_weight, named or perceptual, perceptual_weight, compat)


jax.tree_util.register_pytree_node(FrameSupervision, _flatten, _unflatten)
