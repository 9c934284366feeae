"""Where on the feature maps regions are compared: a keyed choice of centres, the same for query and key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from asccl_jax.errors import InputError
from asccl_jax.types import Locations

__all__ = ["NEIGHBOUR_OFFSETS", "Box", "location_region", "map_sizes", "sample_locations"]

NEIGHBOUR_OFFSETS: tuple[tuple[int, int], ...] = (
    (-1, -1),
    (-1, 0),
    (-1, 1),
    (0, -1),
    (0, 1),
    (1, -1),
    (1, 0),
    (1, 1),
)
"""(row, column) from a centre to its eight neighbours, in the order of the pair index."""

Box: TypeAlias = tuple[float, float, float, float]
"""(row low, row high, column low, column high) as fractions 0..1 of a map's side."""


def map_sizes(image_size: int) -> tuple[int, int, int, int]:
    """Returns the sides of the four stages' feature maps; every stage halves and rounds up.

    >>> map_sizes(224)
    (112, 56, 28, 14)
    >>> map_sizes(72)
    (36, 18, 9, 5)
    """
    first = -(-image_size // 2)
    second = -(-first // 2)
    third = -(-second // 2)
    return first, second, third, -(-third // 2)


def location_region(size: int, *, border: str) -> tuple[int, int]:
    """Returns the square of allowed centres of a map as (first row and column, side).

    The released code takes `r = int(H // 2 + 0.45 H)` cells from `b = (H - r) // 2`. On small maps b is 0, and the
    neighbour at -1 wraps round to the far edge: "wrap" keeps that. "inside" starts at least one cell from the edge and
    ends at least one before it.

    >>> location_region(14, border="wrap"), location_region(14, border="inside")
    ((0, 13), (1, 12))

    Args:
      size: Side of the feature map, in cells.
      border: "inside" or "wrap".

    Raises:
      InputError: The map is too small to hold a centre with all its neighbours.
    """
    side = int(size // 2 + 0.45 * size)
    first = (size - side) // 2
    if border == "inside":
        last = max(first, 1) + side - 1
        first = max(first, 1)
        side = min(last, size - 2) - first + 1
    if side < 1:
        raise InputError(
            f"feature map of {size}x{size} cells holds no centre with eight neighbours (border={border!r}): "
            "use images of at least 33 pixels"
        )
    return first, side


def sample_locations(
    key: Key[Array, ""],
    sizes: Sequence[int],
    counts: Sequence[int],
    *,
    border: str,
    within: Box | None = None,
) -> Locations:
    """Returns centres drawn uniformly and without replacement, one array of (row, column) per feature map.

    Everything but `key` is static, so the function can be traced. A map with fewer cells than asked for gives all of
    its cells, in random order.

    Args:
      key: PRNG key; each map draws with its own fold.
      sizes: Sides of the feature maps, see `map_sizes`.
      counts: Centres per map.
      border: "inside" or "wrap", see `location_region`.
      within: Confines centres to a part of the image, say the mouth. A cell belongs to the box if its middle does;
        where no middle does, the nearest cell stands in.
    """
    return tuple(
        _sample_centres(jax.random.fold_in(key, level), size, count, border=border, within=within)
        for level, (size, count) in enumerate(zip(sizes, counts, strict=True))
    )


def _sample_centres(key: Key[Array, ""], size: int, count: int, *, border: str, within: Box | None) -> Array:
    first, side = location_region(size, border=border)
    rows = columns = (first, first + side - 1)
    if within is not None:
        rows = _cells_between(within[0], within[1], size, *rows)
        columns = _cells_between(within[2], within[3], size, *columns)
    height, width = rows[1] - rows[0] + 1, columns[1] - columns[0] + 1
    cells = jax.random.permutation(key, height * width)[: min(count, height * width)]
    return jnp.stack([rows[0] + cells // width, columns[0] + cells % width], axis=-1).astype(jnp.int32)


def _cells_between(low: float, high: float, size: int, first: int, last: int) -> tuple[int, int]:
    inside = [cell for cell in range(first, last + 1) if low <= (cell + 0.5) / size <= high]
    if inside:
        return inside[0], inside[-1]
    nearest = min(max(int((low + high) / 2 * size), first), last)
    return nearest, nearest
