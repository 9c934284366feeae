"""Shading of shape images: a grey surface under five lamps."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from asccl_jax.geometry.drawing_rules import LAMP_BRIGHTNESS, LAMPS

__all__ = ["lamp_shading"]


def lamp_shading(normals: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
    """Returns the mean light of the five lamps on surfaces with these normals, which need not be of unit length.

    >>> round(float(lamp_shading(jnp.array([0.0, 0.0, 1.0]))), 4)  # 1.7 (1 + 4 / sqrt(3)) / 5
    1.1252
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    total = jnp.zeros_like(x)
    for right, up, ahead in LAMPS:
        total = total + jnp.clip(x * right + y * up + z * ahead, 0, 1) * LAMP_BRIGHTNESS
    return total / len(LAMPS)
