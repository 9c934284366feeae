"""Gaussian and Laplacian pyramids, as OpenCV's `pyrDown` and `pyrUp` make them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["doubled", "gaussian_pyramid", "halved", "laplacian_pyramid", "rebuilt"]


def gaussian_pyramid(image: Float[np.ndarray, "h w c"], levels: int) -> list[Float[np.ndarray, "_ _ c"]]:
    """Returns a picture and `levels` ever smaller ones, finest first."""
    pyramid = [image]
    for _ in range(levels):
        pyramid.append(halved(pyramid[-1]))
    return pyramid


def laplacian_pyramid(image: Float[np.ndarray, "h w c"], levels: int) -> list[Float[np.ndarray, "_ _ c"]]:
    """Returns the smallest picture and what each finer level adds to it, coarsest first; `levels` + 1 in all."""
    pyramid = gaussian_pyramid(image, levels)[::-1]
    details = [fine - doubled(coarse, fine.shape[:2]) for coarse, fine in itertools.pairwise(pyramid)]
    return [pyramid[0], *details]


def rebuilt(pyramid: Sequence[Float[np.ndarray, "_ _ c"]]) -> Float[np.ndarray, "h w c"]:
    """Returns the picture of a Laplacian pyramid, coarsest level first."""
    image = pyramid[0]
    for detail in pyramid[1:]:
        image = doubled(image, detail.shape[:2]) + detail
    return image


def halved(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "_ _ c"]:
    """Returns a picture smoothed (1 4 6 4 1) and at half the size, rounded up; mirrored about its outermost pixels."""
    return _on_both_axes(image, _halve, _halve)


def doubled(image: Float[np.ndarray, "h w c"], shape: tuple[int, int]) -> Float[np.ndarray, "rows columns c"]:
    """Returns a picture smoothly enlarged to a shape whose halves, rounded up, are its own."""
    height, width = shape
    return _on_both_axes(image, lambda rows: _double(rows)[:height], lambda columns: _double(columns)[:width])


_Rows = Float[np.ndarray, "n m c"]


def _on_both_axes(
    image: Float[np.ndarray, "h w c"], on_rows: Callable[[_Rows], _Rows], on_columns: Callable[[_Rows], _Rows]
) -> Float[np.ndarray, "_ _ c"]:
    return on_columns(on_rows(image).transpose(1, 0, 2)).transpose(1, 0, 2)


def _halve(rows: Float[np.ndarray, "n m c"]) -> Float[np.ndarray, "_ m c"]:
    wide = np.pad(rows, ((2, 2), (0, 0), (0, 0)), mode="reflect")
    count = (len(rows) + 1) // 2
    far_left, left, middle, right, far_right = (wide[tap : tap + 2 * count - 1 : 2] for tap in range(5))
    return (far_left + far_right + 4 * (left + right) + 6 * middle) / 16


def _double(rows: Float[np.ndarray, "n m c"]) -> Float[np.ndarray, "_ m c"]:
    # Mirrored at the first row, repeated at the last: OpenCV mirrors the rows between which it has put zeros.
    wide = np.concatenate([rows[1:2] if len(rows) > 1 else rows, rows, rows[-1:]])
    result = np.empty((2 * len(rows), *rows.shape[1:]), rows.dtype)
    result[::2] = (wide[:-2] + 6 * rows + wide[2:]) / 8
    result[1::2] = (rows + wide[2:]) / 2
    return result
