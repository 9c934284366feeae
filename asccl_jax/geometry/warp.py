"""Pictures through affine maps as OpenCV's `warpAffine` draws them: Lanczos-4, linear or nearest, black outside.

Coordinates are rounded as OpenCV rounds them: to 1/1024 of a pixel, then to the 32 places between two pixels for which
there are weights. So nearest is equal to OpenCV 4 and 5 bit for bit and Lanczos-4 and linear within one grey level;
OpenCV rounds its weights to 15 bits on top, we do not.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped
from numpy.lib.stride_tricks import sliding_window_view

from asccl_jax.geometry import affine
from asccl_jax.geometry.lanczos import LANCZOS_BEFORE, LANCZOS_TAPS, lanczos_weights

__all__ = ["warp_lanczos", "warp_linear", "warp_nearest"]

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
    back = matrix if inverse else affine.inverse(matrix)
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
    back = matrix if inverse else affine.inverse(matrix)
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
    back = matrix if inverse else affine.inverse(matrix)
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
