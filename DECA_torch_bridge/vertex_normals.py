"""Unit normals at the vertices of a mesh."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asccl_jax.head.drawing_rules import LEAST_NORMAL

__all__ = ["vertex_normals"]


def vertex_normals(vertices: Float[Tensor, "b n 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b n 3"]:
    """Returns sums of the adjacent faces' normals, larger faces counting more, divided by max(norm, 1e-6).

    Each corner takes the cross product of its own two edges; the three differ by rounding only.
    """
    corners = [vertices[:, faces[:, corner]] for corner in range(3)]
    normals = torch.zeros_like(vertices)
    for corner in (1, 2, 0):
        here, following, previous = (corners[(corner + step) % 3] for step in range(3))
        product = torch.linalg.cross(following - here, previous - here, dim=-1)
        normals = normals.index_add(1, faces[:, corner], product)
    return normals / normals.norm(dim=-1, keepdim=True).clamp(min=LEAST_NORMAL)
