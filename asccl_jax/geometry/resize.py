"""Pictures at another size as OpenCV's `resize` makes them: Lanczos-4, linear or nearest; borders are repeated."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, Shaped

from asccl_jax.geometry.lanczos import LANCZOS_BEFORE, lanczos_weights

__all__ = ["resize_lanczos", "resize_linear", "resize_nearest"]


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
