"""Rasteriser in JAX: which triangle each pixel sees and where in it, by `drawing_rules`.

Barycentric coordinates have gradients, coverage has none. Each triangle is tested against the pixels of its own
bounding box, however many those are: pairs of triangle and pixel are laid out one after the other and worked off in a
loop whose length follows from the data. Nothing is left out, and no size is assumed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from asccl_jax.head.drawing_rules import (
    BOX_MARGIN_PX,
    LAMP_BRIGHTNESS,
    LAMPS,
    LEAST_AREA,
    LEAST_NORMAL,
    NEAREST,
    pixel_centres,
)
from asccl_jax.norms import safe_norm

__all__ = [
    "NOTHING",
    "Fragments",
    "Nearest",
    "barycentric_coordinates",
    "interpolate",
    "lamp_shading",
    "nearest_faces",
    "normal_sums",
    "normals_from_sums",
    "nothing_seen",
    "rasterise",
    "seen_faces",
    "vertex_normals",
]

NOTHING = np.iinfo(np.int32).max
"""Depth key and triangle of a pixel that sees nothing, while the nearest are searched."""

_PAIRS_AT_ONCE = 1 << 15
_UNKNOWN = -2
"""Triangle of the pixels of a mesh that is too much to draw."""


class Fragments(NamedTuple):
    """What each pixel sees.

    Attributes:
      face: Triangle, -1 where there is none.
      barycentric: Weights of its corners, differentiable with respect to x and y of the vertices; 0 where there is
        none.
      depth: Depth of the point seen, differentiable; infinite where there is none.
    """

    face: Int32[Array, "b h w"]
    barycentric: Float[Array, "b h w 3"]
    depth: Float[Array, "b h w"]


class Nearest(NamedTuple):
    """The nearest triangle of each pixel so far.

    Attributes:
      depth: Bits of its depth, a positive float32, in whose order they are; `NOTHING` where there is none.
      face: Its number; `NOTHING` where there is none.
    """

    depth: Int32[Array, " p"]
    face: Int32[Array, " p"]


def rasterise(
    vertices: Float[Array, "b n 3"], faces: Int[Array | np.ndarray, "f 3"], size: tuple[int, int]
) -> Fragments:
    """Returns what each pixel sees of a batch of meshes with common triangles.

    Args:
      vertices: Picture coordinates of `drawing_rules`.
      faces: Triangles of every mesh.
      size: Height and width of the picture in pixels.
    """
    face = seen_faces(vertices, faces, size)
    barycentric, depth = barycentric_coordinates(vertices, faces, face)
    return Fragments(face, barycentric, depth)


def seen_faces(
    vertices: Float[Array, "b n 3"],
    faces: Int[Array | np.ndarray, "f 3"],
    size: tuple[int, int],
    *,
    numbers: Int[Array | np.ndarray, " f"] | None = None,
    behind: Nearest | None = None,
) -> Int32[Array, "b h w"]:
    """Returns the nearest triangle of each pixel, -1 for none; decided in float32, without gradient.

    Args:
      vertices: Picture coordinates.
      faces: Triangles of every mesh.
      size: Height and width of the picture in pixels.
      numbers: What the triangles are called; 0, 1, ... if None.
      behind: What all pictures see already, under other numbers; nothing if None.
    """
    if numbers is None:
        numbers = np.arange(len(faces), dtype=np.int32)
    start = nothing_seen(size) if behind is None else behind
    points = jax.lax.stop_gradient(vertices).astype(jnp.float32)

    def of_one(mesh: Array) -> Array:
        face = nearest_faces(mesh, faces, size, numbers=numbers, behind=start).face
        return jnp.where(face == NOTHING, -1, face).reshape(size)

    # One mesh after the other: its triangles and its picture stay in the cache.
    return jax.lax.map(of_one, points)


def nothing_seen(size: tuple[int, int]) -> Nearest:
    """Returns a picture in which nothing is drawn yet."""
    empty = jnp.full(size[0] * size[1], NOTHING, jnp.int32)
    return Nearest(empty, empty)


def nearest_faces(
    points: Float32[Array, "n 3"],
    faces: Int[Array | np.ndarray, "f 3"],
    size: tuple[int, int],
    *,
    numbers: Int[Array | np.ndarray, " f"],
    behind: Nearest,
) -> Nearest:
    """Returns the nearest triangles of one picture, row after row; arguments as `seen_faces`.

    Where triangles and pixels of their boxes are more than 2^31 pairs, all triangles are `_UNKNOWN`, and what is
    computed of them is not a number.
    """
    height, width = size
    corners = points[jnp.asarray(faces)].reshape(len(faces), 9)
    row, rows = _box(corners[:, 1::3], height)
    column, columns = _box(corners[:, 0::3], width)
    pairs = jnp.where(_is_drawn(corners), rows * columns, 0)
    # Counted in floating point, which does not overflow.
    too_many = jnp.sum(pairs.astype(jnp.float32)) > NOTHING - 2.0 * _PAIRS_AT_ONCE
    ends = jnp.cumsum(jnp.where(too_many, 0, pairs))
    boxes = jnp.stack([row, column, columns, ends - pairs, jnp.asarray(numbers, jnp.int32)], axis=1)
    x, y = jnp.asarray(pixel_centres(width)), jnp.asarray(pixel_centres(height))

    def test(state: tuple[Array, Nearest]) -> tuple[Array, Nearest]:
        start, found = state
        pair = start + jnp.arange(_PAIRS_AT_ONCE, dtype=jnp.int32)
        which = jnp.minimum(jnp.searchsorted(ends, pair, side="right", method="scan"), len(faces) - 1)
        first_row, first_column, across, before, number = jnp.moveaxis(boxes[which], 1, 0)
        across = jnp.maximum(across, 1)
        r, c = first_row + (pair - before) // across, first_column + (pair - before) % across
        weights = _weights(
            corners[which].reshape(-1, 3, 3), x[jnp.clip(c, 0, width - 1)], y[jnp.clip(r, 0, height - 1)]
        )
        depth = _weighted(weights, corners[which, 2::3])
        inside = (weights > 0).all(axis=-1) & (depth >= 0) & (pair < ends[-1])
        # Adding 0 turns a negative zero into a positive one, whose bits are the least.
        key = jax.lax.bitcast_convert_type(depth + 0.0, jnp.int32)
        return start + _PAIRS_AT_ONCE, _merge(found, jnp.where(inside, r * width + c, height * width), key, number)

    if not len(faces):
        return behind
    _, found = jax.lax.while_loop(lambda state: state[0] < ends[-1], test, (jnp.int32(0), behind))
    return Nearest(found.depth, jnp.where(too_many, _UNKNOWN, found.face))


def barycentric_coordinates(
    vertices: Float[Array, "b n 3"], faces: Int[Array | np.ndarray, "f 3"], face: Int[Array, "b h w"]
) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w"]]:
    """Returns barycentric coordinates and depth of the triangles that pixels see, differentiable."""
    height, width = face.shape[1:]
    corners = _gather_corners(vertices, faces, face)
    x, y = (jnp.asarray(pixel_centres(count).astype(vertices.dtype)) for count in (width, height))
    seen = face >= 0
    # A pixel that sees nothing gets a triangle that is none of the mesh: what that would give may not be finite.
    some = jnp.asarray(np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1]], vertices.dtype))
    corners = jnp.where(seen[..., None, None], corners, some[None, None, None])
    weights = _weights(corners, jnp.broadcast_to(x, face.shape), jnp.broadcast_to(y[:, None], face.shape))
    weights = jnp.where((face == _UNKNOWN)[..., None], jnp.nan, weights)
    depth = _weighted(weights, corners[..., 2])
    unknown = face == _UNKNOWN
    return jnp.where((seen | unknown)[..., None], weights, 0), jnp.where(seen | unknown, depth, jnp.inf)


def interpolate(
    fragments: Fragments, faces: Int[Array | np.ndarray, "f 3"], attributes: Float[Array, "b n k"]
) -> Float[Array, "b h w k"]:
    """Returns vertex attributes at the points seen, 0 where there is none.

    Args:
      fragments: What each pixel sees.
      faces: Corners of each triangle in `attributes`.
      attributes: Values at the vertices.
    """
    values = _gather_corners(attributes, faces, fragments.face)
    return _weighted(fragments.barycentric[..., None, :], jnp.moveaxis(values, -2, -1))


def _gather_corners(values: Array, faces: Array | np.ndarray, face: Array) -> Float[Array, "b h w 3 k"]:
    """Values at the corners of what each pixel sees; of triangle 0 where it sees nothing."""
    if not len(faces):
        return jnp.zeros((*face.shape, 3, values.shape[-1]), values.dtype)
    corners = jnp.asarray(faces)[jnp.maximum(face, 0)]
    return jax.vmap(lambda mesh, some: mesh[some])(values, corners)


def _weighted(weights: Array, values: Array) -> Array:
    return weights[..., 0] * values[..., 0] + weights[..., 1] * values[..., 1] + weights[..., 2] * values[..., 2]


def _edge(x: Array, y: Array, start: Array, end: Array) -> Array:
    along_x, along_y = end[..., 0] - start[..., 0], end[..., 1] - start[..., 1]
    return (x - start[..., 0]) * along_y - (y - start[..., 1]) * along_x


def _weights(corners: Float[Array, "*b 3 k"], x: Float[Array, "*b"], y: Float[Array, "*b"]) -> Float[Array, "*b 3"]:
    first, second, third = (corners[..., corner, :2] for corner in range(3))
    area = _edge(third[..., 0], third[..., 1], first, second) + LEAST_AREA
    edges = [_edge(x, y, second, third), _edge(x, y, third, first), _edge(x, y, first, second)]
    return jnp.stack(edges, axis=-1) / area[..., None]


def _is_drawn(corners: Float32[Array, "f 9"]) -> Array:
    first, second, third = (corners[:, 3 * corner : 3 * corner + 2] for corner in range(3))
    area = _edge(third[:, 0], third[:, 1], first, second)
    before_camera = (corners[:, 2::3] < NEAREST).any(axis=1)
    return (jnp.abs(area) > LEAST_AREA) & ~before_camera & jnp.isfinite(corners).all(axis=1)


def _box(positions: Float32[Array, "f 3"], count: int) -> tuple[Int32[Array, " f"], Int32[Array, " f"]]:
    """First pixel and number of pixels, along one axis, whose centres may lie in each triangle."""
    pixels = (positions + 1) * (count / 2) - 0.5
    first = jnp.clip(jnp.ceil(pixels.min(axis=1) - BOX_MARGIN_PX), 0, count)
    last = jnp.clip(jnp.floor(pixels.max(axis=1) + BOX_MARGIN_PX), -1, count - 1)
    return first.astype(jnp.int32), jnp.maximum(last - first + 1, 0).astype(jnp.int32)


def _merge(found: Nearest, pixel: Array, key: Array, number: Array) -> Nearest:
    """Takes in further triangles: by pixel (beyond the last: left out), depth key and number."""
    depth = found.depth.at[pixel].min(key, mode="drop")
    # A pixel that has something nearer now forgets the triangle it had.
    face = jnp.where(depth < found.depth, NOTHING, found.face)
    ties = key == depth.at[pixel].get(mode="clip")
    return Nearest(depth, face.at[pixel].min(jnp.where(ties, number, NOTHING), mode="drop"))


# Unit normals at the vertices of a mesh.


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


# Shading of shape images: a grey surface under five lamps.


def lamp_shading(normals: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
    """Returns the mean light of the five lamps on surfaces with these normals, which need not be of unit length.

    >>> round(float(lamp_shading(jnp.array([0.0, 0.0, 1.0]))), 4)  # 1.7 (1 + 4 / sqrt(3)) / 5
    1.1252
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    total = jnp.zeros_like(x)
    for right, up, ahead in LAMPS:
        total = total + jnp.clip(x * right + y * up + z * ahead, 0, 1) * LAMP_BRIGHTNESS
    return total / len(LAMPS)
