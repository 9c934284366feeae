"""What defines one neural renderer: the sizes of its generator and its discriminators, and of the frames they see."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from asccl_jax.errors import InputError

__all__ = ["RendererSettings"]

_SWITCHES = ("mouth", "eyes")


@dataclasses.dataclass(frozen=True)
class RendererSettings:
    """Sizes of the renderer's networks, saved beside their weights; the defaults are the published ones.

    Hashable, so that it may be a static argument of `jax.jit`.

    Attributes:
      conditioning_channels: Channels a frame is drawn from: NMFC 3, eyes 3, shape 3, in that order.
      context_frames: Frames whose conditioning the generator sees, the last of them the one it draws.
      previous_frames: Its own last frames that it sees, oldest first.
      generator_width: Channels of the generator's first layer, doubled at every halving of the side.
      downsamplings: Halvings of the side.
      residual_blocks: Residual blocks on a path through the generator: half of them, rounded up, in each of the two
        encoders, the others after the sum.
      discriminator_width: Channels of a discriminator's first layer at full resolution, at most 64.
      discriminator_scales: Resolutions at which a discriminator judges, each half the one before.
      discriminator_layers: Its layers of stride 2.
      mouth: Whether a discriminator of its own judges the mouth.
      eyes: Whether one judges the eyes.
      roi_size: Side of the region that they see, in pixels.
      image_size: Side of a frame, in pixels.
    """

    conditioning_channels: int = 9
    context_frames: int = 3
    previous_frames: int = 2
    generator_width: int = 64
    downsamplings: int = 3
    residual_blocks: int = 9
    discriminator_width: int = 64
    discriminator_scales: int = 2
    discriminator_layers: int = 3
    mouth: bool = True
    eyes: bool = False
    roi_size: int = 72
    image_size: int = 256

    def __post_init__(self) -> None:
        """Checks every field, so that a bad setting is named before anything is computed."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _SWITCHES:
                if not isinstance(value, bool):
                    raise InputError(f"renderer setting {field.name}={value!r}: expected true or false")
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"renderer setting {field.name}={value!r}: expected a positive integer")
        step = 2**self.downsamplings
        # Below twice the step the deepest maps are too small to be reflected at their borders.
        if self.image_size % step or self.image_size < max(2 * step, 4):
            raise InputError(
                f"renderer setting image_size={self.image_size}: with {self.downsamplings} downsamplings expected a"
                f" multiple of {step}, at least {max(2 * step, 4)}"
            )
        if self.roi_size % 2 or self.roi_size > self.image_size:
            raise InputError(
                f"renderer setting roi_size={self.roi_size}: expected an even number up to image_size={self.image_size}"
            )

    @property
    def encoder_blocks(self) -> int:
        """Residual blocks of each encoder."""
        return self.residual_blocks - self.decoder_blocks

    @property
    def decoder_blocks(self) -> int:
        """Residual blocks after the sum of the encoders."""
        return self.residual_blocks // 2

    @property
    def discriminators(self) -> tuple[str, ...]:
        """Names of the discriminators, the one of whole frames first."""
        regions = (name for name in _SWITCHES if getattr(self, name))
        return ("discriminator", *(f"{name}_discriminator" for name in regions))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RendererSettings:
        """Returns settings from a plain mapping (a config or JSON).

        Raises:
          InputError: A key that is no field of the settings, or a bad value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise InputError(f"unknown renderer settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Returns a plain mapping that JSON can hold and `from_dict` reads back."""
        return dataclasses.asdict(self)
