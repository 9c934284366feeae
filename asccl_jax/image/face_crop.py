"""What the metric sees of a picture: the face, cut out along its box, antialiased and differentiable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from asccl_jax.errors import InputError
from asccl_jax.image.face_box import inside_frame

__all__ = [
    "crop_faces",
]


def crop_faces(
    image: Float[Array, "b h w c"], box: Float[Array | np.ndarray, "*n"], size: int
) -> Float[Array, "b {size} {size} c"]:
    """Returns faces cut out of images along their boxes and resized to squares, as the metric's training data is.

    Bilinear where it enlarges, and with the triangle filter widened to the step where it shrinks, so that nothing
    aliases and every pixel of the face gets its gradient; what preparation does (Pillow's BILINEAR with a box), within
    its rounding to 8 bits. Works under `jit`, `vmap` and `grad`; the gradient goes to the images and to the boxes.

    >>> stripes = jnp.broadcast_to(jnp.array([0.0, 1.0, 2.0, 3.0])[None, None, :, None], (1, 4, 4, 1))
    >>> crop_faces(stripes, jnp.array([[2.0, 1.0, 4.0, 3.0]]), 2)[0, :, :, 0].tolist()
    [[2.0, 3.0], [2.0, 3.0]]

    Args:
      image: Images, floats of any range.
      box: Borders x0, y0, x1, y1 of the face in each, in pixels; what reaches out of the image is cut off.
      size: Side of the squares.

    Raises:
      InputError: Not one box for each image, or, where boxes have values yet, one with less than a pixel in its image.
    """
    batch, height, width, _ = image.shape
    if box.shape != (batch, 4):
        raise InputError(f"boxes of shape {tuple(box.shape)} for {batch} images: expected ({batch}, 4): x0, y0, x1, y1")
    # Of bfloat16 a place in a picture of 256 pixels has none after the point.
    kind = jnp.float64 if image.dtype == jnp.float64 else jnp.float32
    inside = inside_frame(jnp.asarray(box, kind), (height, width))
    _check_boxes(inside, box, (height, width))
    along = _weights(inside[:, 0], inside[:, 2], width, size)
    down = _weights(inside[:, 1], inside[:, 3], height, size)
    # TPUs would multiply in bfloat16, which has one bit too few for a picture of 8 bits.
    exact = jax.lax.Precision.HIGHEST
    rows = jnp.einsum("bsh,bhwc->bswc", down, image.astype(kind), precision=exact)
    return jnp.einsum("btw,bswc->bstc", along, rows, precision=exact).astype(image.dtype)


def _check_boxes(inside: Float[Array, "b 4"], given: Float[Array | np.ndarray, "b 4"], size: tuple[int, int]) -> None:
    """Refuses boxes that hold no picture: nowhere (a frame without a face), outside, or fractions of the image."""
    if isinstance(inside, jax.core.Tracer) or not inside.is_fully_addressable:
        return
    # A NaN is no smaller than 1.
    empty = ~np.all(np.asarray(inside)[:, 2:] - np.asarray(inside)[:, :2] >= 1, axis=1)
    if empty.any():
        number = int(empty.argmax())
        values = ", ".join(f"{value:g}" for value in np.asarray(given)[number].tolist())
        raise InputError(
            f"box of image {number} is ({values}), expected x0 < x1 and y0 < y1 in pixels of an image {size[1]} wide"
            f" and {size[0]} high, a pixel of it inside at least; leave out frames without a face"
        )


def _weights(low: Float[Array, " b"], high: Float[Array, " b"], given: int, wanted: int) -> Float[Array, "b s n"]:
    """What each of the samples wanted between two borders takes of each of the samples given."""
    kind = low.dtype
    step = ((high - low) / wanted)[:, None]
    middles = low[:, None] + step * (jnp.arange(wanted, dtype=kind) + 0.5)[None]
    distance = jnp.abs(jnp.arange(given, dtype=kind)[None, None] + 0.5 - middles[..., None])
    weights = jnp.maximum(1 - distance / jnp.maximum(step, 1)[..., None], 0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)
