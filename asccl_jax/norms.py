"""Euclidean norms whose value is exact and whose gradient is finite at zero vectors."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["safe_norm", "unit_vectors"]


def safe_norm(vectors: Float[Array, "*batch c"]) -> Float[Array, "*batch 1"]:
    """Returns the Euclidean norm over the last axis, kept as an axis of one.

    A plain square root has an infinite derivative at zero, and a zero vector would turn every gradient into NaN; here
    the gradient of the norm of a zero vector is zero.

    >>> import jax
    >>> float(safe_norm(jnp.array([3.0, 4.0]))[0])
    5.0
    >>> jax.grad(lambda x: safe_norm(x)[0])(jnp.zeros(2)).tolist()
    [0.0, 0.0]
    """
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    is_zero = squares == 0
    # The inner `where` keeps the zero away from the square root, the outer one restores the value.
    return jnp.where(is_zero, jnp.zeros_like(squares), jnp.sqrt(jnp.where(is_zero, jnp.ones_like(squares), squares)))


def unit_vectors(vectors: Float[Array, "*batch c"], *, epsilon: float = 1e-7) -> Float[Array, "*batch c"]:
    """Returns `x / (|x| + epsilon)` over the last axis, as the released code normalises embeddings.

    >>> [round(x, 4) for x in unit_vectors(jnp.array([3.0, 4.0])).tolist()]
    [0.6, 0.8]
    """
    return vectors / (safe_norm(vectors) + epsilon)
