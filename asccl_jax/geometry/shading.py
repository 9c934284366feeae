"""Shading of shape images: a grey surface under five lamps."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["LAMPS", "LAMP_BRIGHTNESS", "NORMAL_LIMIT", "SHAPE_GREY", "lamp_shading"]

LAMPS = tuple(
    tuple(component / sum(c * c for c in direction) ** 0.5 for component in direction)
    for direction in ((-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1), (0, 0, 1))
)
"""Directions towards the five lamps, in the head's axes."""

LAMP_BRIGHTNESS = 1.7
SHAPE_GREY = 180 / 255
NORMAL_LIMIT = 0.15
"""Surfaces are drawn while their normal's z in image space is below this (0: edge-on, negative: to the camera)."""


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
