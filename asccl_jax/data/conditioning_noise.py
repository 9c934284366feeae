"""How training disturbs what a renderer draws from, so that it forgives what it meets later.

The published renderer moves and scales each conditioning picture by about a hundredth, anew for every frame and every
stream, and moves the pupils. Within a sequence that shakes what should move smoothly: here a sequence is disturbed as
one, unless asked otherwise.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import UInt8

from asccl_jax.data.aligned_frames import AlignedFrame, eyes_at
from asccl_jax.geometry.eyes import EYE_NOISE_DRAWS, noisy_eye_points

__all__ = ["NOISES", "STREAMS", "ConditioningNoise", "moved_and_scaled"]

NOISES = ("none", "sequence", "frame")
"""Not at all, one draw for a sequence, or one for each frame and stream as published."""

STREAMS = ("nmfc_image", "eyes_image", "shape_image")

_SHIFT, _SCALE = 0.01, 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class _Draw:
    """One disturbance: shift in pixels (x, y), scale, and draws of `noisy_eye_points`."""

    shift: tuple[int, int]
    scale: float
    eyes: np.ndarray


class ConditioningNoise:
    """Disturbs the conditioning of one sequence after another.

    Args:
      kind: One of `NOISES`.
      rng: Of the sequence.
      size: Side of the pictures.
    """

    def __init__(self, kind: str, rng: np.random.Generator, size: int) -> None:
        self._kind, self._rng, self._size = kind, rng, size
        self._first = self._draw()

    def __call__(self, frame: AlignedFrame) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """Returns a frame's conditioning pictures by name, disturbed."""
        if self._kind == "none":
            return {name: getattr(frame, name) for name in STREAMS}
        draws = [self._draw() if self._kind == "frame" else self._first for _ in STREAMS]
        eyes = noisy_eye_points(frame.eye_points, draws[STREAMS.index("eyes_image")].eyes)
        pictures = {name: getattr(frame, name) for name in STREAMS}
        pictures["eyes_image"] = eyes_at(eyes, frame.stored_size, self._size)
        return {
            name: moved_and_scaled(pictures[name], draw.shift, draw.scale)
            for name, draw in zip(STREAMS, draws, strict=True)
        }

    def _draw(self) -> _Draw:
        x, y = np.rint(self._rng.uniform(-_SHIFT, _SHIFT, 2) * self._size).astype(int).tolist()
        scale = float(self._rng.uniform(1 - _SCALE, 1 + _SCALE))
        return _Draw((x, y), scale, self._rng.standard_normal(EYE_NOISE_DRAWS))


def moved_and_scaled(
    image: UInt8[np.ndarray, "h w c"], shift: tuple[int, int], scale: float
) -> UInt8[np.ndarray, "h w c"]:
    """Returns a picture scaled about its middle and moved, the nearest pixel each, black where there is none.

    Args:
      image: The picture.
      shift: To the right and down, in pixels.
      scale: Above 1 enlarges.
    """
    result = image
    for axis, move in ((0, shift[1]), (1, shift[0])):
        length = image.shape[axis]
        places = np.floor((np.arange(length) + 0.5 - length / 2 - move) / scale + length / 2).astype(int)
        outside = (places < 0) | (places >= length)
        result = np.take(result, np.clip(places, 0, length - 1), axis=axis)
        result[(slice(None),) * axis + (outside,)] = 0
    return result
