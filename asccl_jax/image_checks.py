"""Whether what a user hands to the metric can be images as it takes them: floats, RGB in [-1, 1], channels last."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from asccl_jax.errors import InputError

__all__ = ["check_image"]

_FARTHEST = 2.0
"""Resampling and generators without a bound overshoot [-1, 1], but not by so much."""


def check_image(image: Shaped[Array, "..."], name: str) -> None:
    """Refuses other shapes and whole numbers, also while tracing, and values that are no [-1, 1], once there are any.

    Args:
      image: What was given.
      name: What the caller calls it, for the message.

    Raises:
      InputError: See above.
    """
    if image.ndim != 4 or image.shape[-1] != 3 or not image.size:
        raise InputError(f"{name}: shape {tuple(image.shape)}, expected (batch, height, width, 3), channels last")
    turn = "image / 127.5 - 1"
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(
            f"{name}: {image.dtype}, expected floating-point RGB in [-1, 1]; of 0..255 that is"
            f" {turn.replace('image', 'image.astype(jnp.float32)')}"
        )
    if isinstance(image, jax.core.Tracer) or not getattr(image, "is_fully_addressable", True):
        return
    with jax.ensure_compile_time_eval():
        # A maximum need not be NaN where a value is: on CPU some are passed over.
        finite, farthest = bool(jnp.isfinite(image).all()), float(jnp.max(jnp.abs(image)))
    if not finite:
        raise InputError(f"{name}: NaN or infinite values, expected RGB in [-1, 1]")
    if farthest > _FARTHEST:
        raise InputError(f"{name}: values up to {farthest:g}, expected RGB in [-1, 1]; of 0..255 that is {turn}")
