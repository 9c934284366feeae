"""Rotations as FLAME takes them: axis-angle vectors to matrices, and the yaw of a matrix."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from asccl_jax.norms import safe_norm

__all__ = ["matrix_from_axis_angle", "yaw_of_matrix"]

_NORM_EPSILON = 1e-8


def matrix_from_axis_angle(axis_angle: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Returns rotations by Rodrigues' formula, as FLAME evaluates it.

    The angle is the norm of the vector with 1e-8 added to each component: finite, with its gradient, at the zero
    vector. At -1e-8 in each component, where the formula divides by zero, this is the identity.
    """
    norm = safe_norm(axis_angle + _NORM_EPSILON)
    x, y, z = (part[..., 0] for part in jnp.split(axis_angle / jnp.where(norm == 0, jnp.ones_like(norm), norm), 3, -1))
    zero = jnp.zeros_like(x)
    skew = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    sine, cosine = jnp.sin(norm)[..., None], jnp.cos(norm)[..., None]
    # Products of 3 x 3 matrices, written out: accelerators would round the factors of a matrix product.
    squared = jnp.sum(skew[..., :, :, None] * skew[..., None, :, :], axis=-2)
    identity = jnp.broadcast_to(jnp.eye(3, dtype=skew.dtype), skew.shape)
    return identity + sine * skew + (1 - cosine) * squared


def yaw_of_matrix(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
    """Returns the angle about y, in radians, of Rz Ry Rx."""
    return jnp.arctan2(-matrix[..., 2, 0], jnp.hypot(matrix[..., 0, 0], matrix[..., 1, 0]))
