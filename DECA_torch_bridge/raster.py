"""Rasterisers of torch's arrays, by `asccl_jax.head.drawing_rules`: torch's own, and the compiled one of a CPU."""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from asccl_jax.head.drawing_rules import BOX_MARGIN_PX, LEAST_AREA, NEAREST, pixel_centres
from data_prep.head_fit.drawing_kernels import fill

__all__ = [
    "Fragments",
    "NumbaRasteriser",
    "Rasteriser",
    "TorchRasteriser",
    "barycentric_coordinates",
    "interpolate",
]

_PAIRS_AT_ONCE = 1 << 24


class Fragments(NamedTuple):
    """What each pixel sees.

    Attributes:
      face: Triangle, -1 where there is none.
      barycentric: Weights of its corners, differentiable with respect to x and y of the vertices; 0 where there is
        none.
      depth: Depth of the point seen, differentiable; infinite where there is none.
    """

    face: Int[Tensor, "b h w"]
    barycentric: Float[Tensor, "b h w 3"]
    depth: Float[Tensor, "b h w"]


class Rasteriser(Protocol):
    """Anything that finds the fragments of a batch of meshes with common triangles."""

    def __call__(
        self, vertices: Float[Tensor, "b n 3"], faces: Int[Tensor, "f 3"], size: int | tuple[int, int]
    ) -> Fragments:
        """Returns what each pixel sees.

        Args:
          vertices: Picture coordinates of `drawing_rules`.
          faces: Triangles of every mesh of the batch.
          size: Side of a square picture, or height and width, in pixels.
        """
        ...


class TorchRasteriser:
    """Pairs of triangles and pixels of their boxes, reduced to the nearest; any device, batched."""

    def __call__(
        self, vertices: Float[Tensor, "b n 3"], faces: Int[Tensor, "f 3"], size: int | tuple[int, int]
    ) -> Fragments:
        """Returns what each pixel sees; see `Rasteriser`."""
        height, width = _picture_size(size)
        with torch.no_grad():
            face = _nearest_faces(vertices.detach().float(), faces, height, width)
        barycentric, depth = barycentric_coordinates(vertices, faces, face)
        return Fragments(face, barycentric, depth)


class NumbaRasteriser:
    """The kernel of `data_prep.head_fit`, on one core; no gradients."""

    def __call__(
        self, vertices: Float[Tensor, "b n 3"], faces: Int[Tensor, "f 3"], size: int | tuple[int, int]
    ) -> Fragments:
        """Returns what each pixel sees; see `Rasteriser`."""
        height, width = _picture_size(size)
        batch = len(vertices)
        points = np.ascontiguousarray(vertices.detach().numpy(), np.float32)
        triangles = np.ascontiguousarray(faces.numpy(), np.int32)
        face = np.empty((batch, height, width), np.int32)
        weights = np.empty((batch, height, width, 3), np.float32)
        depth = np.empty((batch, height, width), np.float32)
        x, y = pixel_centres(width), pixel_centres(height)
        for mesh in range(batch):
            fill(points[mesh], triangles, x, y, face[mesh], weights[mesh], depth[mesh])
        return Fragments(torch.from_numpy(face).long(), torch.from_numpy(weights), torch.from_numpy(depth))


def _picture_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def barycentric_coordinates(
    vertices: Float[Tensor, "b n 3"], faces: Int[Tensor, "f 3"], face: Int[Tensor, "b h w"]
) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w"]]:
    """Returns barycentric coordinates and depth of the triangles that pixels see; differentiable, coverage is not."""
    batch, height, width = face.shape
    corners = _gather_vertices(vertices, faces, face)
    x, y = _pixel_centres(width, vertices), _pixel_centres(height, vertices)[:, None]
    weights = _weights(corners[..., :2], x.expand(batch, height, width), y.expand(batch, height, width))
    depth = _weighted(weights, corners[..., 2])
    seen = face >= 0
    return torch.where(seen[..., None], torch.stack(weights, dim=-1), 0), torch.where(seen, depth, torch.inf)


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "f 3"], attributes: Float[Tensor, "b n k"]
) -> Float[Tensor, "b h w k"]:
    """Returns vertex attributes at the points seen, 0 where there is none.

    Args:
      fragments: What each pixel sees.
      faces: Corners of each triangle in `attributes`: those of the mesh, or of its texture space.
      attributes: Values at the vertices; a batch of 1 serves any batch.
    """
    batch = len(fragments.face)
    if len(attributes) != batch:
        attributes = attributes.expand(batch, -1, -1)
    values = _gather_vertices(attributes, faces, fragments.face)
    first, second, third = torch.unbind(fragments.barycentric, dim=-1)
    return _weighted((first[..., None], second[..., None], third[..., None]), values.movedim(-2, -1))


def _gather_vertices(values: Tensor, faces: Tensor, face: Tensor) -> Tensor:
    """[b, h, w, 3, k]: values at the corners of what each pixel sees, of triangle 0 where it sees nothing."""
    some = faces if len(faces) else faces.new_zeros(1, 3)
    corners = some[face.clamp(min=0)]
    flat = corners.flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).view(*corners.shape, -1)


def _weighted(weights: tuple[Tensor, Tensor, Tensor], values: Tensor) -> Tensor:
    return weights[0] * values[..., 0] + weights[1] * values[..., 1] + weights[2] * values[..., 2]


def _pixel_centres(count: int, like: Tensor) -> Tensor:
    return torch.from_numpy(pixel_centres(count)).to(device=like.device, dtype=like.dtype)


def _edge(x: Tensor, y: Tensor, start: Tensor, end: Tensor) -> Tensor:
    along_x, along_y = end[..., 0] - start[..., 0], end[..., 1] - start[..., 1]
    return (x - start[..., 0]) * along_y - (y - start[..., 1]) * along_x


def _weights(corners: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = torch.unbind(corners, dim=-2)
    area = _edge(third[..., 0], third[..., 1], first, second) + LEAST_AREA
    return (
        _edge(x, y, second, third) / area,
        _edge(x, y, third, first) / area,
        _edge(x, y, first, second) / area,
    )


def _nearest_faces(vertices: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """[b, h, w]: the nearest triangle of each pixel, -1 for none."""
    batch, count = len(vertices), len(faces)
    corners = vertices[:, faces].flatten(0, 1)
    first, second, third = torch.unbind(corners[..., :2], dim=-2)
    area = _edge(third[:, 0], third[:, 1], first, second)
    finite = corners.isfinite().all(dim=-1).all(dim=-1)
    drawn = (area.abs() > LEAST_AREA) & ~(corners[..., 2] < NEAREST).any(dim=-1) & finite
    kept = drawn.nonzero()[:, 0]
    corners = corners[kept]
    column, columns = _box(corners[..., 0], width)
    row, rows = _box(corners[..., 1], height)
    # Depth and triangle in one number, the nearest and then the lowest triangle the least.
    nothing = torch.iinfo(torch.int64).max
    nearest = torch.full((batch * height * width,), nothing, dtype=torch.int64, device=vertices.device)
    x, y = _pixel_centres(width, vertices), _pixel_centres(height, vertices)
    pairs = columns * rows
    ends = pairs.cumsum(0)
    for start, stop in _chunks(ends):
        which = torch.repeat_interleave(torch.arange(start, stop, device=vertices.device), pairs[start:stop])
        before = ends[start] - pairs[start]
        inside_box = torch.arange(len(which), device=vertices.device) - (ends - pairs - before)[which]
        r = row[which] + inside_box // columns[which]
        c = column[which] + inside_box % columns[which]
        weights = _weights(corners[which, :, :2], x[c], y[r])
        depth = _weighted(weights, corners[which, :, 2])
        inside = (weights[0] > 0) & (weights[1] > 0) & (weights[2] > 0) & (depth >= 0)
        which, r, c, depth = which[inside], r[inside], c[inside], depth[inside] + 0.0
        pixel = (kept[which] // count) * (height * width) + r * width + c
        key = (depth.view(torch.int32).long() << 32) + kept[which] % count
        nearest.scatter_reduce_(0, pixel, key, "amin")
    return torch.where(nearest == nothing, -1, nearest & 0xFFFFFFFF).view(batch, height, width)


def _box(positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First pixel and number of pixels, along one axis, whose centres may lie in each triangle."""
    pixels = (positions.double() + 1) * (count / 2) - 0.5
    first = torch.ceil(pixels.amin(dim=-1) - BOX_MARGIN_PX).clamp(min=0, max=count)
    last = torch.floor(pixels.amax(dim=-1) + BOX_MARGIN_PX).clamp(min=-1, max=count - 1)
    return first.long(), (last - first + 1).clamp(min=0).long()


def _chunks(ends: Tensor) -> list[tuple[int, int]]:
    """Ranges of triangles with about `_PAIRS_AT_ONCE` pairs each."""
    if not len(ends):
        return []
    total = int(ends[-1])
    limits = torch.arange(1, total // _PAIRS_AT_ONCE + 2, device=ends.device) * _PAIRS_AT_ONCE
    cuts = torch.unique(torch.searchsorted(ends, limits, right=True)).tolist()
    edges = sorted({0, *(min(cut, len(ends)) for cut in cuts), len(ends)})
    return list(itertools.pairwise(edges))
