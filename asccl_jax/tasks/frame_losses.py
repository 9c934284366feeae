"""Losses of drawn frames: perceptual, metric and pixels; the discriminators of frame, mouth and eyes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, Key

from asccl_jax.errors import InputError
from asccl_jax.image.face_crop import crop_faces
from asccl_jax.losses.contrastive import correlation_loss
from asccl_jax.losses.generator import (
    GAN_MODES,
    STAGE_WEIGHTS,
    VGG_WEIGHTS,
    GanMode,
    crop_regions,
    feature_matching,
    judged_fake,
    judged_real,
    mean_point,
    passed_as_real,
    perceptual_distance,
    relative_distance,
)
from asccl_jax.models.correlation import CorrelationMetric
from asccl_jax.models.renderer import MultiscaleDiscriminator
from asccl_jax.models.vgg import Vgg
from asccl_jax.sampling import sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks import Scalars
from asccl_jax.tasks.frame_chunks import FrameChunk, in_one_row
from asccl_jax.types import Locations, Variables
from asccl_jax.weights import FrozenMetric

__all__ = [
    "FrameAdversaries",
    "FrameSupervision",
    "JudgedFrames",
    "Perceptual",
    "Scene",
    "VggDistance",
    "judged_frames",
]

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


# Discriminators against generated frames: one sees all of them, others a region each; all passes are made once.

_EYES = slice(3, 6)
"""Channels of a frame's conditioning that hold the eye image."""


@no_type_check  # a tree map puts axes, shapes and None where arrays were
@struct.dataclass
class JudgedFrames:
    """What discriminators are shown beside generated frames; the frames of all sequences are in one row.

    Attributes:
      condition: What each frame was drawn from, 0..1: NMFC, eyes, shape.
      real: The real frames, RGB in [-1, 1].
      mouth_centre: Middle of the mouth (x, y) in pixels.
    """

    condition: Float[Array, "n h w 9"]
    real: Float[Array, "n h w 3"]
    mouth_centre: Int[Array, "n 2"]


def judged_frames(chunk: FrameChunk) -> JudgedFrames:
    """Returns the frames of a chunk, without those that only give context."""
    own = chunk.blocks[:, -chunk.mask.shape[1] :]
    return JudgedFrames(in_one_row(own), in_one_row(chunk.real), in_one_row(chunk.mouth_centre))


@dataclasses.dataclass(frozen=True)
class FrameAdversaries:
    """How much the generator minds each discriminator, and by which loss; a term of weight 0 is not computed.

    Attributes:
      adversarial_weight: Weight of the adversarial term of each region.
      feature_matching_weight: Weight of the distances in a discriminator's own maps, for each region.
      gan_mode: "ls" (least squares) or "hinge".
    """

    adversarial_weight: float = 1.0
    feature_matching_weight: float = 10.0
    gan_mode: GanMode = "ls"

    def __post_init__(self) -> None:
        for name in ("adversarial_weight", "feature_matching_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name}={getattr(self, name)}: expected a number of at least 0")
        if self.gan_mode not in GAN_MODES:
            raise InputError(f"gan_mode={self.gan_mode!r}: expected one of {', '.join(GAN_MODES)}")

    @property
    def empty(self) -> bool:
        """Whether the generator hears of no discriminator; then they do not learn either."""
        return self.adversarial_weight == 0 and self.feature_matching_weight == 0

    def __call__(
        self,
        module: MultiscaleDiscriminator,
        params: Variables,
        judged: JudgedFrames,
        fake: Float[Array, "n h w 3"],
        *,
        roi_size: int,
    ) -> tuple[Float[Array, ""], Scalars, Float[Array, "n h w 3"], Variables]:
        """Returns what the generator minimises here, the terms, its gradient and the gradients of the discriminators.

        A discriminator minimises half the sum of its losses on real and on generated frames. Its pass over generated
        frames is pulled back twice: for the generator to the frames, for itself to its weights.

        Args:
          module: The network that all discriminators are.
          params: Weights of each: "discriminator" sees all of a frame, "mouth_discriminator" and "eyes_discriminator"
            a square round mouth or eyes.
          judged: What is shown beside the generated frames.
          fake: Generated frames.
          roi_size: Side of the squares.
        """
        losses: list[Array] = []
        terms: Scalars = {}
        gradients: Variables = {}
        to_fake = jnp.zeros_like(fake)
        for name, weights in params.items():
            loss, parts, pulled, gradients[name] = self._oppose(module, name, weights, judged, fake, roi_size)
            losses.append(loss)
            terms |= parts
            to_fake = to_fake + pulled
        return jnp.sum(jnp.stack(losses)), terms, to_fake, gradients

    def _oppose(
        self,
        module: MultiscaleDiscriminator,
        name: str,
        params: Variables,
        judged: JudgedFrames,
        fake: Array,
        roi_size: int,
    ) -> tuple[Array, Scalars, Array, Variables]:
        prefix = name.removesuffix("discriminator")

        def judge(params: Variables, image: Array) -> Any:
            both = jnp.concatenate([judged.condition, image], axis=-1)
            return module.apply({"params": params}, _region(prefix, both, judged, roi_size))

        real_maps, of_real = jax.vjp(lambda params: judge(params, judged.real), params)
        fake_maps, of_fake = jax.vjp(judge, params, fake)

        def fooling(maps: Any) -> tuple[Array, Scalars]:
            parts, weighted = {}, []
            if self.adversarial_weight > 0:
                parts[f"{prefix}adversarial"] = passed_as_real(maps, mode=self.gan_mode)
                weighted.append(self.adversarial_weight * parts[f"{prefix}adversarial"])
            if self.feature_matching_weight > 0:
                parts[f"{prefix}feature_matching"] = feature_matching(maps, real_maps)
                weighted.append(self.feature_matching_weight * parts[f"{prefix}feature_matching"])
            return jnp.sum(jnp.stack(weighted)), parts

        (loss, parts), fooled = jax.value_and_grad(fooling, has_aux=True)(fake_maps)
        on_real, seen_real = jax.value_and_grad(lambda maps: judged_real(maps, mode=self.gan_mode))(real_maps)
        on_fake, seen_fake = jax.value_and_grad(lambda maps: judged_fake(maps, mode=self.gan_mode))(fake_maps)
        own = jax.tree.map(lambda a, b: 0.5 * (a + b), of_real(seen_real)[0], of_fake(seen_fake)[0])
        return loss, {**parts, f"{prefix}real": on_real, f"{prefix}fake": on_fake}, of_fake(fooled)[1], own


def _region(prefix: str, image: Array, judged: JudgedFrames, size: int) -> Array:
    """Returns the part of frames that a discriminator sees."""
    if not prefix:
        return image
    # Nothing else tells where the eyes are: the middle of what the eye image shows, which is between the pupils.
    centre = judged.mouth_centre if prefix == "mouth_" else mean_point(judged.condition[..., _EYES])
    return crop_regions(image, centre, size)
