"""Whether what a user hands to the metric can be an image as it takes them: floats, RGB in [-1, 1]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from asccl_jax.errors import InputError

__all__ = ["check_image"]

_FARTHEST = 2.0
"""Resampling and generators without a bound overshoot [-1, 1], but not by so much."""


def check_image(image: Shaped[Array, "b h w c"], name: str) -> None:
    """Refuses whole numbers, also while tracing, and values that are no [-1, 1], where there are values yet.

    Args:
      image: What was given.
      name: What the caller calls it, for the message.

    Raises:
      InputError: See above.
    """
    turn = "image / 127.5 - 1"
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(
            f"{name}: {image.dtype}, expected floating-point RGB in [-1, 1]; of 0..255 that is"
            f" {turn.replace('image', 'image.astype(jnp.float32)')}"
        )
    if isinstance(image, jax.core.Tracer) or not getattr(image, "is_fully_addressable", True):
        return
    with jax.ensure_compile_time_eval():
        farthest = float(jnp.max(jnp.abs(image)))
    if farthest > _FARTHEST:
        raise InputError(f"{name}: values up to {farthest:g}, expected RGB in [-1, 1]; of 0..255 that is {turn}")
