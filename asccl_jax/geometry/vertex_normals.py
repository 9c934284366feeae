"""Unit normals at the vertices of a mesh."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from asccl_jax.geometry.drawing_rules import LEAST_NORMAL
from asccl_jax.norms import safe_norm

__all__ = ["normal_sums", "normals_from_sums", "vertex_normals"]


def vertex_normals(vertices: Float[Array, "b n 3"], faces: Int[Array | np.ndarray, "f 3"]) -> Float[Array, "b n 3"]:
    """Returns sums of the adjacent faces' normals, larger faces counting more, divided by max(norm, 1e-6)."""
    return normals_from_sums(normal_sums(vertices, faces, vertices.shape[1]))


def normal_sums(
    vertices: Float[Array, "b n 3"], faces: Int[Array | np.ndarray, "f 3"], count: int
) -> Float[Array, "b m 3"]:
    """Returns the sums of the normals of the faces at each of the first `count` vertices, in square metres.

    A face's normal is the cross product of two of its edges; each of its corners takes the same, which is what the
    published code's three products are but for rounding.
    """
    # Vertices first: a face takes and gives whole rows, of all meshes.
    rows = jnp.moveaxis(vertices, 0, 1)
    first, second, third = (rows[faces[:, corner]] for corner in range(3))
    product = jnp.cross(second - first, third - first)
    sums = jnp.zeros((count, *product.shape[1:]), product.dtype)
    for corner in range(3):
        sums = sums.at[faces[:, corner]].add(product)
    return jnp.moveaxis(sums, 0, 1)


def normals_from_sums(sums: Float[Array, "b n 3"]) -> Float[Array, "b n 3"]:
    """Returns sums of faces' normals divided by max(norm, 1e-6)."""
    return sums / jnp.maximum(safe_norm(sums), LEAST_NORMAL)
