"""Pictures at another size as OpenCV's `resize` makes them: Lanczos-4 or nearest, the border repeated outside."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from jaxtyping import Shaped

from asccl_jax.geometry.lanczos import LANCZOS_BEFORE, LANCZOS_TAPS, lanczos_weights

__all__ = ["resize_lanczos", "resize_nearest"]


def resize_lanczos(image: Shaped[np.ndarray, "h w c"], shape: tuple[int, int]) -> Shaped[np.ndarray, "rows columns c"]:
    """Returns a picture at another size, interpolated by Lanczos-4; of the image's type.

    Nothing is averaged where it shrinks. Within one grey level of OpenCV, which rounds its weights to 11 bits.

    Args:
      image: uint8, rounded and cut off to 0..255 again, or float32, left as it comes.
      shape: Height and width wanted.
    """
    height, width, channels = image.shape
    if (height, width) == shape:
        return image.copy()
    down, along = _weights(height, shape[0]), _weights(width, shape[1])
    tall = (down @ image.astype(np.float32).reshape(height, -1)).reshape(shape[0], width, channels)
    turned = along @ tall.transpose(1, 0, 2).reshape(width, -1)
    values = turned.reshape(shape[1], shape[0], channels).transpose(1, 0, 2)
    if image.dtype != np.uint8:
        return np.ascontiguousarray(values, dtype=image.dtype)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


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


def _weights(given: int, wanted: int) -> scipy.sparse.csr_array:
    """What each of `wanted` samples takes of each of `given` ones."""
    places = (np.arange(wanted) + 0.5) * (given / wanted) - 0.5
    before = np.floor(places)
    weights = lanczos_weights(places - before)
    taps = before.astype(np.int64)[:, None] + np.arange(-LANCZOS_BEFORE, LANCZOS_TAPS - LANCZOS_BEFORE)
    rows = np.repeat(np.arange(wanted), LANCZOS_TAPS)
    columns = np.clip(taps, 0, given - 1).reshape(-1)
    return scipy.sparse.coo_array((weights.reshape(-1), (rows, columns)), shape=(wanted, given)).tocsr()
