"""The precision of sums: statistics, norms and accumulated products are float32 even where the rest is bfloat16."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import DTypeLike

__all__ = ["at_least_float32"]


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """Returns float64 for float64, else float32.

    >>> at_least_float32(jnp.bfloat16) == jnp.float32, at_least_float32(jnp.float64) == jnp.float64
    (True, True)
    """
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32
