"""Wrinkles: displacement along the normal in texture space, turned into normals of the finer surface."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from asccl_jax.head.drawing_rules import LEAST_NORMAL

__all__ = ["detail_normals", "displace", "grid_faces"]

# Texels at the borders that belong to no triangle, as DECA's own grid leaves them.
_COLUMNS_LEFT_OUT = 2
_ROWS_LEFT_OUT = 5


def displace(
    positions: Float[Tensor, "b s s 3"],
    normals: Float[Tensor, "b s s 3"],
    decoded: Float[Tensor, "b s s"],
    fixed: Float[Tensor, "s s"],
) -> Float[Tensor, "b s s 3"]:
    """Returns the finer surface, a point per texel.

    Args:
      positions: Surface of the head by texel, metres.
      normals: Its normals.
      decoded: Metres along them, of each face: the detail decoder's, where it counts.
      fixed: Metres along them that every face has.
    """
    return positions + decoded[..., None] * normals + fixed[..., None] * normals


def grid_faces(size: int) -> Int[Tensor, "f 3"]:
    """Returns the triangles between texels (row-major numbers) of the finer surface, two a square, row by row."""
    rows = torch.arange(_ROWS_LEFT_OUT, size - _ROWS_LEFT_OUT - 1)[None, :, None]
    columns = torch.arange(_COLUMNS_LEFT_OUT, size - _COLUMNS_LEFT_OUT - 1)[:, None, None]
    corner = rows * size + columns
    upper = torch.cat([corner, corner + size, corner + 1], dim=-1)
    lower = torch.cat([corner + 1, corner + size, corner + size + 1], dim=-1)
    return torch.stack([upper, lower], dim=2).reshape(-1, 3)


def detail_normals(surface: Float[Tensor, "b s s 3"]) -> Float[Tensor, "b s s 3"]:
    """Returns unit normals of a surface given by texel, those of the triangles of `grid_faces`; 0 outside them."""
    rows = slice(_ROWS_LEFT_OUT, surface.shape[1] - _ROWS_LEFT_OUT)
    columns = slice(_COLUMNS_LEFT_OUT, surface.shape[2] - _COLUMNS_LEFT_OUT)
    inner = surface[:, rows, columns]
    here, right = inner[:, :-1, :-1], inner[:, :-1, 1:]
    below, across = inner[:, 1:, :-1], inner[:, 1:, 1:]
    upper = torch.linalg.cross(below - here, right - here, dim=-1)
    lower = torch.linalg.cross(below - right, across - right, dim=-1)
    # Each triangle counts at its three corners; padding shifts it there (columns first, then rows).
    total = sum(
        functional.pad(triangle, (0, 0, column, 1 - column, row, 1 - row))
        for triangle, places in ((upper, ((0, 0), (1, 0), (0, 1))), (lower, ((0, 1), (1, 0), (1, 1))))
        for row, column in places
    )
    assert isinstance(total, Tensor)
    unit = total / total.norm(dim=-1, keepdim=True).clamp(min=LEAST_NORMAL)
    margins = (0, 0, _COLUMNS_LEFT_OUT, _COLUMNS_LEFT_OUT, _ROWS_LEFT_OUT, _ROWS_LEFT_OUT)
    return functional.pad(unit, margins)
