"""Settings of the networks: metric, manipulator, renderer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from asccl_jax.errors import InputError

__all__ = ["STAGE_BLOCKS", "ManipulatorSettings", "MetricSettings", "RendererSettings"]

STAGE_BLOCKS: Mapping[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
}
"""Residual blocks a stage of the IResNet of a given depth (ArcFace's `iresnet.py`)."""


@dataclasses.dataclass(frozen=True)
class MetricSettings:
    """Network and loss of one correlation metric, saved beside its weights.

    Every keyword with two named values is a place where the paper's method and the released code differ, or where
    a checkpoint must say how it was trained; `from_compat` picks a whole set. Hashable, so that it may be a static
    argument of `jax.jit`.

    Attributes:
      depth: IResNet depth: 18, 34, 50 (published) or 100. Ignored where `stage_blocks` is given.
      stage_blocks: Residual blocks of the four stages; None takes those of `depth`.
      stage_widths: Channels of the four stages; heads project each to a quarter.
      image_size: Side in pixels of the square input the metric was trained on.
      centre_counts: Locations drawn per stage; each has 8 neighbours.
      temperature: Temperature of PatchNCE, `tau` in the paper.
      loss_scale: Factor on the sum over stages (0.3 in the released code).
      weighting: "per_location" weighs each location's loss (paper); "global" multiplies the stage's mean loss by the
        mean weight, which is what the released code computes; "none" switches the disparity weights off.
      weight_reduction: How the weight of a location comes from its channels: "mean" over channel weights, or "norm",
        the weight of the root-mean-square disparity.
      weight_gradient: "stopped" (paper) or "flows" (released code: the loss may fall by shrinking disparities).
      border: "inside" keeps all neighbours on the map; "wrap" lets index -1 reach the far edge (released code).
      mask_same_centre: True removes the other neighbours of the same centre from the negatives.
      frozen_statistics: BatchNorm statistics when the metric is used as a loss: "running" (fixed), or "batch", as the
        released renderer does, which never calls `eval()`.
      channel_order: Order the network was trained on: "rgb" or "bgr". Callers always pass RGB.
      similarity_axis: Axis of the reported cosine similarities: "channels", or "pairs" as in the released logs.
      bn_group_size: Images over which training statistics are taken, 8 as published; None takes the global batch.
      resizing: How training shrinks stored images to `image_size`: "antialiased", or "sampled", bilinear between the
        nearest pixels whatever lies between them (released code).
    """

    depth: int = 50
    stage_blocks: tuple[int, int, int, int] | None = None
    stage_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    image_size: int = 224
    centre_counts: tuple[int, int, int, int] = (32, 16, 8, 4)
    temperature: float = 0.07
    loss_scale: float = 0.3
    weighting: Literal["per_location", "global", "none"] = "per_location"
    weight_reduction: Literal["mean", "norm"] = "mean"
    weight_gradient: Literal["stopped", "flows"] = "stopped"
    border: Literal["inside", "wrap"] = "inside"
    mask_same_centre: bool = False
    frozen_statistics: Literal["running", "batch"] = "running"
    channel_order: Literal["rgb", "bgr"] = "rgb"
    similarity_axis: Literal["channels", "pairs"] = "channels"
    bn_group_size: int | None = 8
    resizing: Literal["antialiased", "sampled"] = "antialiased"

    def __post_init__(self) -> None:
        """Checks every field, so that a bad setting is named before anything is computed."""
        choices = {
            "weighting": ("per_location", "global", "none"),
            "weight_reduction": ("mean", "norm"),
            "weight_gradient": ("stopped", "flows"),
            "border": ("inside", "wrap"),
            "frozen_statistics": ("running", "batch"),
            "channel_order": ("rgb", "bgr"),
            "similarity_axis": ("channels", "pairs"),
            "resizing": ("antialiased", "sampled"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"metric setting {name}={value!r}: expected one of {', '.join(allowed)}")
        if self.stage_blocks is None and self.depth not in STAGE_BLOCKS:
            raise InputError(f"metric setting depth={self.depth}: expected one of {sorted(STAGE_BLOCKS)}")
        for name in ("stage_blocks", "stage_widths", "centre_counts"):
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) != 4 or any(int(entry) < 1 for entry in value):
                raise InputError(f"metric setting {name}={value}: expected four positive integers, one a stage")
            object.__setattr__(self, name, tuple(int(entry) for entry in value))
        if any(width % 4 for width in self.stage_widths):
            raise InputError(f"metric setting stage_widths={self.stage_widths}: expected multiples of 4")
        if self.temperature <= 0 or self.loss_scale <= 0:
            raise InputError("metric settings temperature and loss_scale must be positive")
        if self.bn_group_size is not None and self.bn_group_size < 1:
            raise InputError(f"metric setting bn_group_size={self.bn_group_size}: expected None or at least 1")
        if self.image_size < 33:
            raise InputError(f"metric setting image_size={self.image_size}: the fourth stage needs at least 33 pixels")

    @property
    def blocks(self) -> tuple[int, int, int, int]:
        """Residual blocks of the four stages."""
        return self.stage_blocks if self.stage_blocks is not None else STAGE_BLOCKS[self.depth]

    @classmethod
    def from_compat(cls, compat: str = "paper", **overrides: Any) -> MetricSettings:
        """Returns the settings of a named behaviour.

        Args:
          compat: "paper", the method as described (the defaults above), or "released", the public code bit for bit,
            to load its checkpoints and compare with its logs.
          **overrides: Fields to set on top of the named behaviour.

        Raises:
          InputError: Unknown `compat`, unknown field or bad value.
        """
        released = {
            "weighting": "global",
            "weight_gradient": "flows",
            "border": "wrap",
            "frozen_statistics": "batch",
            "channel_order": "bgr",
            "similarity_axis": "pairs",
            "resizing": "sampled",
        }
        presets: dict[str, dict[str, Any]] = {"paper": {}, "released": released}
        if compat not in presets:
            raise InputError(f"compat={compat!r}: expected one of {', '.join(presets)}")
        return cls.from_dict({**presets[compat], **overrides})

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> MetricSettings:
        """Returns settings from a plain mapping (a config or JSON), lists turned into tuples.

        Raises:
          InputError: A key that is no field of the settings.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise InputError(f"unknown metric settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns a plain mapping that JSON can hold and `from_dict` reads back."""
        return dataclasses.asdict(self)


# What defines one expression manipulator: the sizes of its four networks.

_PAIRS = ("encoder_widths", "encoder_head_widths")


@dataclasses.dataclass(frozen=True)
class ManipulatorSettings:
    """Sizes of the manipulator's networks, saved beside their weights; the defaults are the published ones.

    Hashable, so that it may be a static argument of `jax.jit`.

    Attributes:
      coefficients: Numbers a frame: the jaw's opening, then the expression coefficients.
      emotions: Labels, as many as `asccl_jax.data.schema.EMOTIONS` has.
      style_size: Length of a style vector.
      latent_size: Length of the normal noise from which the mapping network makes a style.
      hidden_size: Width of the mapping network.
      generator_width: Width of the generator's first layers and, per direction, of its LSTM.
      generator_head_width: Width of the generator's last layers.
      encoder_widths: Widths of the first two layers of style encoder and discriminator.
      encoder_lstm_width: Width, per direction, of their LSTM.
      encoder_head_widths: Widths of the two layers after it.
      lstm_layers: Layers of each LSTM.
      lstm_biases: Bias vectors a gate: 2, both trained, as PyTorch has them, so that Adam moves their sum twice as far;
        or 1.
      window: Frames the networks are trained on and applied to at once.
    """

    coefficients: int = 51
    emotions: int = 7
    style_size: int = 16
    latent_size: int = 4
    hidden_size: int = 64
    generator_width: int = 512
    generator_head_width: int = 1024
    encoder_widths: tuple[int, int] = (512, 256)
    encoder_lstm_width: int = 128
    encoder_head_widths: tuple[int, int] = (128, 64)
    lstm_layers: int = 2
    lstm_biases: int = 2
    window: int = 10

    def __post_init__(self) -> None:
        """Checks every field, so that a bad setting is named before anything is computed."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _PAIRS:
                if not isinstance(value, tuple) or len(value) != 2 or not all(map(_is_positive, value)):
                    raise InputError(f"manipulator setting {field.name}={value!r}: expected two positive integers")
            elif not _is_positive(value):
                raise InputError(f"manipulator setting {field.name}={value!r}: expected a positive integer")
        if self.lstm_biases not in (1, 2):
            raise InputError(f"manipulator setting lstm_biases={self.lstm_biases}: expected 1 or 2")
        if self.window < 2:
            raise InputError(f"manipulator setting window={self.window}: a correlation along time needs at least 2")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ManipulatorSettings:
        """Returns settings from a plain mapping (a config or JSON), lists turned into tuples.

        Raises:
          InputError: A key that is no field of the settings, or a bad value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise InputError(f"unknown manipulator settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns a plain mapping that JSON can hold and `from_dict` reads back."""
        return dataclasses.asdict(self)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# What defines one neural renderer: the sizes of its generator and its discriminators, and of the frames they see.

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
