"""Square pieces of images round given points, all of one size, moved inwards where they would leave the image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from asccl_jax.errors import InputError

__all__ = ["crop_regions", "mean_point"]


def crop_regions(
    image: Float[Array, "n h w c"], centre: Int[Array, "n 2"], size: int
) -> Float[Array, "n {size} {size} c"]:
    """Returns the square of side `size` round a point of each image.

    Rows `y - size // 2` to `y + size // 2 - 1` and the like for columns, once x and y are clamped such that the square
    lies in the image. Gradients go back to the pixels that were cut out.

    >>> image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> crop_regions(image, jnp.array([[1, 2]]), 2)[0, :, :, 0].tolist()
    [[4.0, 5.0], [8.0, 9.0]]
    >>> crop_regions(image, jnp.array([[9, -5]]), 2)[0, :, :, 0].tolist()
    [[2.0, 3.0], [6.0, 7.0]]

    Args:
      image: Images.
      centre: A point (x, y) of each, in whole pixels.
      size: Side of the squares; even.

    Raises:
      InputError: An odd side, or one larger than the images.
    """
    _, height, width, channels = image.shape
    if size % 2 or not 0 < size <= min(height, width):
        raise InputError(f"regions of {size} pixels in images of {height} x {width}: expected an even side that fits")

    def crop(one: Array, point: Array) -> Array:
        column, row = point - size // 2
        # `dynamic_slice` clamps the corner to the image: the same squares as from clamped centres.
        return lax.dynamic_slice(one, (row, column, jnp.zeros_like(row)), (size, size, channels))

    # A negative start would count from the end.
    return jax.vmap(crop)(image, jnp.maximum(centre, size // 2))


def mean_point(image: Float[Array, "n h w c"]) -> Int[Array, "n 2"]:
    """Returns the middle (x, y) of what is drawn on black, in whole pixels; the image's own middle where nothing is.

    >>> mean_point(jnp.zeros((1, 4, 6, 1)).at[0, 1, 2:5].set(1.0)).tolist()
    [[3, 1]]
    """
    _, height, width, _ = image.shape
    light = jnp.sum(image, axis=-1)
    total = jnp.sum(light, axis=(1, 2))
    safe = jnp.where(total > 0, total, jnp.ones_like(total))
    x = jnp.sum(light * jnp.arange(width, dtype=light.dtype)[None, None], axis=(1, 2)) / safe
    y = jnp.sum(light * jnp.arange(height, dtype=light.dtype)[None, :, None], axis=(1, 2)) / safe
    middle = jnp.asarray([width // 2, height // 2], jnp.int32)
    found = jnp.round(jnp.stack([x, y], axis=-1)).astype(jnp.int32)
    return jnp.where((total > 0)[:, None], found, middle[None])
