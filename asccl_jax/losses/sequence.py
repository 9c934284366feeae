"""What a manipulated window should keep and reach: the style asked for, a way back, and the motion of the mouth.

All functions give one number a window; the loss is their mean over the batch.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["LEAST_VARIANCE", "absolute_error", "mouth_correlation", "pearson"]

LEAST_VARIANCE = 1e-12
"""Variance along time at or below which a track counts as constant: a deviation of a millionth (of a radian)."""


def absolute_error(found: Float[Array, "b *rest"], expected: Float[Array, "b *rest"]) -> Float[Array, " b"]:
    """Returns the mean absolute difference over all axes but the first.

    The style loss between two styles, and the cycle loss between a window and its reconstruction.

    >>> absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])).tolist()
    [1.0]
    """
    return jnp.mean(jnp.abs(found - expected), axis=tuple(range(1, found.ndim)))


def pearson(first: Float[Array, "b t"], second: Float[Array, "b t"]) -> Float[Array, " b"]:
    """Returns the correlation of two tracks along time, `mean(a' b') / sqrt(mean(a'^2) mean(b'^2))`, a' = a - mean(a).

    >>> up = jnp.array([[0.0, 1.0, 2.0]])
    >>> [round(float(pearson(up, other)[0]), 6) for other in (5 * up + 1, -up, 0 * up)]
    [1.0, -1.0, 0.0]

    Args:
      first: One track a window.
      second: Like `first`.
    """
    first, second = (track - jnp.mean(track, axis=1, keepdims=True) for track in (first, second))
    variances = jnp.mean(jnp.square(first), axis=1), jnp.mean(jnp.square(second), axis=1)
    # Upstream: manipulator/ divides without a guard, so one clip with a still jaw makes all of training NaN. A window
    # in which either track is constant has no correlation: it counts 0 and sends no gradient.
    moving = (variances[0] > LEAST_VARIANCE) & (variances[1] > LEAST_VARIANCE)
    scales = [lax.rsqrt(jnp.where(moving, variance, jnp.ones_like(variance))) for variance in variances]
    covariance = jnp.mean(first * second, axis=1)
    return jnp.where(moving, covariance * scales[0] * scales[1], jnp.zeros_like(covariance))


def mouth_correlation(
    source: Float[Array, "b t c"], generated: Float[Array, "b t c"], restored: Float[Array, "b t c"]
) -> Float[Array, " b"]:
    """Returns how well the jaw moves along: source with generated plus generated with restored, -2 to 2.

    Args:
      source: Windows as they were; column 0 is the jaw's opening.
      generated: The same in another style.
      restored: `generated`, given the source's style again.
    """
    return pearson(source[..., 0], generated[..., 0]) + pearson(generated[..., 0], restored[..., 0])
