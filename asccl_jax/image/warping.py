"""Pictures warped and resized, and the affine maps that say how."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from jaxtyping import Float, Float32, Int, Real, Shaped
from numpy.lib.stride_tricks import sliding_window_view

__all__ = [
    "LANCZOS_BEFORE",
    "LANCZOS_TAPS",
    "inverse_affine",
    "joined",
    "lanczos_weights",
    "moved",
    "resize_lanczos",
    "resize_linear",
    "resize_nearest",
    "similarity",
    "warp_lanczos",
    "warp_linear",
    "warp_nearest",
]

# Affine maps of the plane as their 2 x 3 matrices: applied to points, one after another, and back.


def moved(points: Real[np.ndarray, "*b n 2"], matrix: Float[np.ndarray, "*b 2 3"]) -> Float[np.ndarray, "*b n 2"]:
    """Returns points where the maps lead them; each set of points has its own matrix."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def joined(second: Float[np.ndarray, "2 3"], first: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """Returns the matrix of one map after another."""
    return second[:, :2] @ first + np.array([[0, 0, 1]]) * second[:, 2:]


def inverse_affine(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """Returns the matrix of the map back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.concatenate([back, -back @ matrix[:, 2:]], axis=1)


# The interpolation kernel Lanczos-4: eight weights for a place between two samples.

LANCZOS_TAPS = 8
"""Samples that an interpolated value takes part of."""

LANCZOS_BEFORE = 3
"""How many of them lie before the nearest one on the left."""


def lanczos_weights(fraction: Float[np.ndarray, " n"]) -> Float32[np.ndarray, "n taps"]:
    """Returns the weights of samples -3 .. 4 for places 0 <= fraction < 1; sum 1, as OpenCV has them.

    sinc(t) sinc(t / 4), where t is the distance to a sample.
    """
    distance = fraction[:, None] - np.arange(-LANCZOS_BEFORE, LANCZOS_TAPS - LANCZOS_BEFORE)
    weights = np.sinc(distance) * np.sinc(distance / 4)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


# Coordinates are rounded as OpenCV rounds them: to 1/1024 of a pixel, then to the 32 places between two pixels for
# which there are weights. So nearest is equal to OpenCV 4 and 5 bit for bit and Lanczos-4 and linear within one grey
# level; OpenCV rounds its weights to 15 bits on top, we do not.

_STEP_BITS = 10
"""OpenCV's coordinates are whole numbers of 1/1024 of a pixel."""

_PLACE_BITS = 5
_PLACES = 1 << _PLACE_BITS
"""Places from one pixel to the next for which it interpolates."""

_WEIGHTS = lanczos_weights(np.arange(_PLACES) / _PLACES)

_TILE = 64
"""Side of the part of a picture that is drawn at once, in pixels of the source: what fits a cache."""

_LEAST_TILE = 8


def warp_lanczos(
    image: Shaped[np.ndarray, "h w c"],
    matrix: Float[np.ndarray, "2 3"],
    shape: tuple[int, int],
    *,
    inverse: bool = False,
) -> Shaped[np.ndarray, "rows columns c"]:
    """Returns a picture seen through a map, interpolated by Lanczos-4; of the image's type.

    Meant for maps that keep the size or enlarge: nothing is averaged where a picture shrinks.

    Args:
      image: uint8, rounded and cut off to 0..255 again, or float32, left as it comes.
      matrix: From pixels of the image to those of the result; centres of pixels are at integers.
      shape: Height and width of the result.
      inverse: The matrix leads from pixels of the result to those of the image (OpenCV's WARP_INVERSE_MAP).
    """
    back = matrix if inverse else inverse_affine(matrix)
    columns, rows = _rounded(back, shape, _PLACE_BITS)
    frame = LANCZOS_TAPS  # so wide that a pixel which sees nothing of the image finds all its samples there
    first_column, first_row = (
        np.clip((place >> _PLACE_BITS) - LANCZOS_BEFORE, -frame, size) + frame
        for place, size in ((columns, image.shape[1]), (rows, image.shape[0]))
    )
    padded = np.pad(image, ((frame, frame), (frame, frame), (0, 0)))
    warped = np.empty((*shape, image.shape[2]), np.float32)
    side = _tile_side(back)
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            tile = (slice(top, top + side), slice(left, left + side))
            warped[tile] = _interpolate(
                padded, first_row[tile], first_column[tile], rows[tile] % _PLACES, columns[tile] % _PLACES
            )
    return _as_type(warped, image.dtype)


def warp_linear(
    image: Shaped[np.ndarray, "h w c"],
    matrix: Float[np.ndarray, "2 3"],
    shape: tuple[int, int],
    *,
    inverse: bool = False,
) -> Shaped[np.ndarray, "rows columns c"]:
    """Returns a picture seen through a map, interpolated between the nearest two pixels each way; of the image's type.

    Args:
      image: uint8, rounded again, or float32.
      matrix: As `warp_lanczos` takes it; nothing is averaged where the picture shrinks.
      shape: Height and width of the result.
      inverse: As `warp_lanczos` takes it.
    """
    back = matrix if inverse else inverse_affine(matrix)
    columns, rows = _rounded(back, shape, _PLACE_BITS)
    frame = 2  # so wide that a pixel which sees nothing of the image finds both its samples there
    left, top = (
        np.clip(place >> _PLACE_BITS, -frame, size) + frame
        for place, size in ((columns, image.shape[1]), (rows, image.shape[0]))
    )
    padded = np.pad(image.astype(np.float32), ((frame, frame), (frame, frame), (0, 0)))
    right, low = ((place % _PLACES / np.float32(_PLACES))[..., None].astype(np.float32) for place in (columns, rows))
    upper = (1 - right) * padded[top, left] + right * padded[top, left + 1]
    lower = (1 - right) * padded[top + 1, left] + right * padded[top + 1, left + 1]
    return _as_type((1 - low) * upper + low * lower, image.dtype)


def warp_nearest(
    image: Shaped[np.ndarray, "h w *c"],
    matrix: Float[np.ndarray, "2 3"],
    shape: tuple[int, int],
    *,
    inverse: bool = False,
) -> Shaped[np.ndarray, "rows columns *c"]:
    """Returns a picture or mask seen through a map, each pixel the nearest of the image; zero outside.

    Args:
      image: Of any type.
      matrix: As `warp_lanczos` takes it.
      shape: Height and width of the result.
      inverse: As `warp_lanczos` takes it.
    """
    back = matrix if inverse else inverse_affine(matrix)
    columns, rows = _rounded(back, shape, 0)
    seen = (rows >= 0) & (rows < image.shape[0]) & (columns >= 0) & (columns < image.shape[1])
    warped = np.zeros((*shape, *image.shape[2:]), image.dtype)
    warped[seen] = image[rows[seen], columns[seen]]
    return warped


def _rounded(
    back: Float[np.ndarray, "2 3"], shape: tuple[int, int], bits: int
) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, "h w"]]:
    """Column and row in the image of each pixel of the result, as whole numbers of 1 / 2**bits of a pixel."""
    steps = 1 << _STEP_BITS
    along = np.rint(steps * back[:, :1] * np.arange(shape[1])).astype(np.int64)
    down = np.rint(steps * (back[:, 1:2] * np.arange(shape[0]) + back[:, 2:])).astype(np.int64)
    dropped = _STEP_BITS - bits
    column, row = (down[:, :, None] + along[:, None, :] + (1 << (dropped - 1))) >> dropped
    return column, row


def _tile_side(back: Float[np.ndarray, "2 3"]) -> int:
    """Side of a tile of the result; smaller where the image shrinks, since a tile costs as much as its source."""
    step = max(1.0, float(np.sqrt(abs(np.linalg.det(back[:, :2])))))
    return max(_LEAST_TILE, int(_TILE / step))


def _interpolate(
    padded: Shaped[np.ndarray, "h w c"],
    first_row: Int[np.ndarray, "rows columns"],
    first_column: Int[np.ndarray, "rows columns"],
    row_place: Int[np.ndarray, "rows columns"],
    column_place: Int[np.ndarray, "rows columns"],
) -> Float32[np.ndarray, "rows columns c"]:
    """One tile: its source at all 32 places between columns by matrix products, then eight rows of that a pixel."""
    channels = padded.shape[2]
    left, top = int(first_column.min()), int(first_row.min())
    right, bottom = int(first_column.max()) + LANCZOS_TAPS, int(first_row.max()) + LANCZOS_TAPS
    source = padded[top:bottom, left:right].astype(np.float32).transpose(1, 0, 2).reshape(right - left, -1)
    windows = sliding_window_view(source, LANCZOS_TAPS, axis=0).transpose(0, 2, 1)
    between = np.matmul(_WEIGHTS, windows)  # (column, place, row x channel)
    starts = ((first_column - left) * _PLACES + column_place) * source.shape[1] + (first_row - top) * channels
    taken = sliding_window_view(between.reshape(-1), LANCZOS_TAPS * channels)[starts]
    taken = taken.reshape(*starts.shape, LANCZOS_TAPS, channels)
    return np.matmul(_WEIGHTS[row_place][..., None, :], taken)[..., 0, :]


def _as_type(values: Float32[np.ndarray, "h w c"], dtype: np.dtype) -> Shaped[np.ndarray, "h w c"]:
    if dtype != np.uint8:
        return values.astype(dtype, copy=False)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# The similarity between two sets of points: turn, size and shift that lay one upon the other (Umeyama 1991).


def similarity(
    source: Float[np.ndarray, "n d"], target: Float[np.ndarray, "n d"], *, scale: bool = True
) -> Float[np.ndarray, "m m"]:
    """Returns the homogeneous matrix of the similarity that brings `source` nearest to `target`.

    No reflection; NaN where all source points are one.

    Args:
      source: Points.
      target: Where each of them should come to lie.
      scale: Whether sizes may change too; a turn and a shift alone otherwise.
    """
    count, dimensions = source.shape
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    covariance = (target - target_mean).T @ centred / count
    left, spread, right = np.linalg.svd(covariance)
    rank = np.linalg.matrix_rank(covariance)
    matrix = np.eye(dimensions + 1)
    if rank == 0:
        return np.full_like(matrix, np.nan)
    signs = np.ones(dimensions)
    if np.linalg.det(covariance) < 0:
        signs[-1] = -1
    turn = signs
    if rank == dimensions - 1:  # a line in the plane: its determinant says nothing of a reflection
        turn = np.ones(dimensions)
        turn[-1] = 1 if np.linalg.det(left) * np.linalg.det(right) > 0 else -1
    rotation = (left * turn) @ right
    size = (spread @ signs) / centred.var(axis=0).sum() if scale else 1.0
    matrix[:dimensions, :dimensions] = size * rotation
    matrix[:dimensions, dimensions] = target_mean - size * rotation @ source_mean
    return matrix


# Pictures at another size as OpenCV's `resize` makes them: Lanczos-4, linear or nearest; borders are repeated.


def resize_lanczos(image: Shaped[np.ndarray, "h w c"], shape: tuple[int, int]) -> Shaped[np.ndarray, "rows columns c"]:
    """Returns a picture at another size, interpolated by Lanczos-4; of the image's type.

    Nothing is averaged where it shrinks. Within one grey level of OpenCV, which rounds its weights to 11 bits.

    Args:
      image: uint8, rounded and cut off to 0..255 again, or float32, left as it comes.
      shape: Height and width wanted.
    """
    if image.shape[:2] == shape:
        return image.copy()
    down, along = (_lanczos(given, wanted) for given, wanted in zip(image.shape[:2], shape, strict=True))
    return _weighted(image, down, along)


def resize_linear(image: Shaped[np.ndarray, "h w c"], shape: tuple[int, int]) -> Shaped[np.ndarray, "rows columns c"]:
    """Returns a picture at another size, interpolated between the nearest two pixels each way; of the image's type.

    Nothing is averaged where it shrinks. Within one grey level of OpenCV, which rounds its weights to 11 bits.

    Args:
      image: uint8, rounded again, or float32.
      shape: Height and width wanted.
    """
    if image.shape[:2] == shape:
        return image.copy()
    down, along = (_linear(given, wanted) for given, wanted in zip(image.shape[:2], shape, strict=True))
    return _weighted(image, down, along)


def resize_nearest(
    image: Shaped[np.ndarray, "h w *c"], shape: tuple[int, int]
) -> Shaped[np.ndarray, "rows columns *c"]:
    """Returns a picture or mask at another size, each pixel one of the image."""
    # OpenCV's own rounding: the inverse of the ratio of sizes, where given / wanted may be one bit larger.
    rows, columns = (
        np.minimum((np.arange(wanted) * (1 / (wanted / given))).astype(np.int64), given - 1)
        for wanted, given in zip(shape, image.shape[:2], strict=True)
    )
    return image[rows[:, None], columns]


def _weighted(
    image: Shaped[np.ndarray, "h w c"], down: scipy.sparse.csr_array, along: scipy.sparse.csr_array
) -> Shaped[np.ndarray, "rows columns c"]:
    height, width, channels = image.shape
    rows, columns = down.shape[0], along.shape[0]
    tall = (down @ image.astype(np.float32).reshape(height, -1)).reshape(rows, width, channels)
    turned = along @ tall.transpose(1, 0, 2).reshape(width, -1)
    values = turned.reshape(columns, rows, channels).transpose(1, 0, 2)
    if image.dtype != np.uint8:
        return np.ascontiguousarray(values, dtype=image.dtype)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _lanczos(given: int, wanted: int) -> scipy.sparse.csr_array:
    before, shares = _places(given, wanted)
    return _matrix(before - LANCZOS_BEFORE, lanczos_weights(shares), given)


def _linear(given: int, wanted: int) -> scipy.sparse.csr_array:
    before, shares = _places(given, wanted)
    return _matrix(before, np.stack([1 - shares, shares], axis=1).astype(np.float32), given)


def _places(given: int, wanted: int) -> tuple[Int[np.ndarray, " wanted"], Float[np.ndarray, " wanted"]]:
    """The sample at or before each wanted one, and how far beyond it the wanted one lies."""
    places = (np.arange(wanted) + 0.5) * (given / wanted) - 0.5
    before = np.floor(places)
    return before.astype(np.int64), places - before


def _matrix(
    first: Int[np.ndarray, " wanted"], weights: Float[np.ndarray, "wanted taps"], given: int
) -> scipy.sparse.csr_array:
    """What each wanted sample takes of each of `given` ones, from `first` on."""
    wanted, taps = weights.shape
    rows = np.repeat(np.arange(wanted), taps)
    columns = np.clip(first[:, None] + np.arange(taps), 0, given - 1).reshape(-1)
    return scipy.sparse.coo_array((weights.reshape(-1), (rows, columns)), shape=(wanted, given)).tocsr()
