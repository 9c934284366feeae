"""What defines one correlation metric: its network, its loss and the places where paper and released code differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from asccl_jax.errors import InputError

__all__ = ["STAGE_BLOCKS", "MetricSettings"]

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
