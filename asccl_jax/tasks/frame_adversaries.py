"""Discriminators against generated frames: one sees all of them, others a region each; all passes are made once."""

from __future__ import annotations

import dataclasses
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from asccl_jax.errors import InputError
from asccl_jax.losses.adversarial import GAN_MODES, GanMode, judged_fake, judged_real, passed_as_real
from asccl_jax.losses.perceptual import feature_matching
from asccl_jax.losses.region import crop_regions, mean_point
from asccl_jax.models.patch_discriminator import MultiscaleDiscriminator
from asccl_jax.tasks import Scalars
from asccl_jax.tasks.frame_chunks import FrameChunk, in_one_row
from asccl_jax.types import Variables

__all__ = ["FrameAdversaries", "JudgedFrames", "judged_frames"]

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
