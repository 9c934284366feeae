"""Losses of networks that judge and networks that are judged."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["least_squares"]


def least_squares(scores: Float[Array, "..."], target: float) -> Float[Array, ""]:
    """Returns the mean squared distance of a discriminator's scores from what they should be (LSGAN).

    The discriminator's loss is that of real examples with target 1 plus that of generated ones with target 0; the
    generator's is that of its own with target 1.

    >>> float(least_squares(jnp.array([1.0, 0.0]), 1.0))
    0.5
    """
    return jnp.mean(jnp.square(scores - target))
