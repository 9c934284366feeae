"""What defines one expression manipulator: the sizes of its four networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from asccl_jax.errors import InputError

__all__ = ["ManipulatorSettings"]

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
