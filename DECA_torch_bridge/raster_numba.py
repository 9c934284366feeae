"""The rasteriser of `raster` compiled for the CPU: a depth buffer filled triangle by triangle, same to the bit."""
# ruff: noqa: ANN001, ANN202 -- numba infers the arrays' types; docstrings name their shapes.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.compiled import compiled
from DECA_torch_bridge.raster import (
    BOX_MARGIN_PX,
    LEAST_AREA,
    NEAREST,
    Fragments,
    barycentric_coordinates,
    picture_size,
    pixel_centres,
)

__all__ = ["NumbaRasteriser"]

_AREA = np.float32(LEAST_AREA)
_NEAR = np.float32(NEAREST)
_MARGIN = BOX_MARGIN_PX


class NumbaRasteriser:
    """One core, no float64; where a gradient is asked for, weights are computed once more by torch."""

    def __call__(
        self, vertices: Float[Tensor, "b n 3"], faces: Int[Tensor, "f 3"], size: int | tuple[int, int]
    ) -> Fragments:
        """Returns what each pixel sees; see `raster.Rasteriser`."""
        height, width = picture_size(size)
        batch = len(vertices)
        points = np.ascontiguousarray(vertices.detach().numpy(), np.float32)
        triangles = np.ascontiguousarray(faces.numpy())
        face = np.empty((batch, height, width), np.int64)
        weights = np.empty((batch, height, width, 3), np.float32)
        depth = np.empty((batch, height, width), np.float32)
        x, y = pixel_centres(width), pixel_centres(height)
        for mesh in range(batch):
            _fill(points[mesh], triangles, x, y, face[mesh], weights[mesh], depth[mesh])
        found = torch.from_numpy(face)
        if vertices.requires_grad and torch.is_grad_enabled():
            return Fragments(found, *barycentric_coordinates(vertices, faces, found))
        return Fragments(found, torch.from_numpy(weights), torch.from_numpy(depth))


@compiled(nogil=True)
def _fill(points, faces, x, y, face, weights, depth):
    """Fills face [h, w], weights [h, w, 3] and depth [h, w] from points [n, 3] and faces [f, 3]."""
    height, width = face.shape
    face[:] = -1
    weights[:] = 0
    depth[:] = np.inf
    zero = np.float32(0)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
        bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
        cx, cy, cz = points[c, 0], points[c, 1], points[c, 2]
        if az < _NEAR or bz < _NEAR or cz < _NEAR:
            continue
        area = (cx - ax) * (by - ay) - (cy - ay) * (bx - ax)
        # Also refuses what is not a number.
        if not abs(area) > _AREA or not np.isfinite(az + bz + cz):
            continue
        first_column, last_column = _box(min(ax, bx, cx), max(ax, bx, cx), width)
        first_row, last_row = _box(min(ay, by, cy), max(ay, by, cy), height)
        positive = area > zero
        area += _AREA
        for row in range(first_row, last_row + 1):
            py = y[row]
            a_part = (py - by) * (cx - bx)
            b_part = (py - cy) * (ax - cx)
            c_part = (py - ay) * (bx - ax)
            for column in range(first_column, last_column + 1):
                px = x[column]
                wa = (px - bx) * (cy - by) - a_part
                wb = (px - cx) * (ay - cy) - b_part
                wc = (px - ax) * (by - ay) - c_part
                if positive:
                    if wa <= zero or wb <= zero or wc <= zero:
                        continue
                elif wa >= zero or wb >= zero or wc >= zero:
                    continue
                wa, wb, wc = wa / area, wb / area, wc / area
                here = wa * az + wb * bz + wc * cz
                if here < depth[row, column] and here >= zero and wa > zero and wb > zero and wc > zero:
                    depth[row, column] = here
                    face[row, column] = f
                    weights[row, column, 0] = wa
                    weights[row, column, 1] = wb
                    weights[row, column, 2] = wc


@numba.njit(inline="always")
def _box(low, high, count):
    """First and last pixel along one axis whose centre may lie in a triangle."""
    first = np.ceil((np.float64(low) + 1) * (count / 2) - 0.5 - _MARGIN)
    last = np.floor((np.float64(high) + 1) * (count / 2) - 0.5 + _MARGIN)
    return int(min(max(first, 0.0), float(count))), int(min(max(last, -1.0), count - 1.0))
