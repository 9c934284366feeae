"""The face's box and what the metric sees of it: one antialiased, differentiable crop."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Real

from asccl_jax.errors import InputError

__all__ = [
    "MARGIN",
    "crop_faces",
    "inside_frame",
    "landmark_box",
    "mask_box",
]

# The face box, along which faces are cut out for the metric: from 68 landmarks, for arrays of any kind.
#
# Coordinates are pixels of the frame. A box holds borders, not centres: pixel 0 reaches from 0 to 1, so a landmark at
# x, pixel centres at integers, lies at x + 0.5 on the box's axis. The aspect ratio of the box is lost, so that a place
# of the crop is the same place of the face whether the mouth is open or shut.

MARGIN = 0.1
"""Margin on each side of the landmarks' box, as a fraction of the box."""

_BROWS = 0.2
"""How far brows reach above the eyes, over the height from chin to eyes; .16 to .24 in clips of three people."""

_Arrays: TypeAlias = Any
"""NumPy's or JAX's, which preparation does without."""


def landmark_box(landmarks: Float[_Arrays, "*n points 2"]) -> Float[_Arrays, "*n 4"]:
    """Returns the borders x0, y0, x1, y1 of the face: the landmarks' box, a tenth wider and higher on each side.

    The box may reach out of the frame, see `inside_frame`. Works on NumPy's arrays and on JAX's, traced ones too.

    >>> landmarks = np.zeros((68, 2))
    >>> landmarks[0] = (100, 50)
    >>> landmark_box(landmarks).tolist()
    [-9.5, -4.5, 110.5, 55.5]

    Args:
      landmarks: 68 points (x, y) in pixels of the frame, pixel centres at integers.
    """
    low, high = landmarks.min(axis=-2) + 0.5, landmarks.max(axis=-2) + 0.5
    margin = MARGIN * (high - low)
    return landmarks.__array_namespace__().concat([low - margin, high + margin], axis=-1)


def mask_box(mask: Bool[np.ndarray, "h w"], eye_points: Real[np.ndarray, "14 2"]) -> Float64[np.ndarray, "4"]:
    """Returns about the box that `landmark_box` gives, where nothing but the face's mask and its eyes are known.

    A mask ends where the jaw does at the sides and below, but reaches up to the hair where landmarks end at the brows:
    these are looked for above the eyes. All of the frame where the mask is empty.

    Args:
      mask: Where the face is.
      eye_points: Contours and pupils, see `geometry.eyes`.
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return np.array([0, 0, *mask.shape[::-1]], np.float64)
    chin, eyes = rows.max(), eye_points[:, 1].mean()
    return landmark_box(np.array([[columns.min(), eyes - _BROWS * (chin - eyes)], [columns.max(), chin]]))


def inside_frame(box: Float[_Arrays, "*n 4"], frame_size: tuple[int, int]) -> Float[_Arrays, "*n 4"]:
    """Returns the part of boxes that lies in their frames; arrays as `landmark_box` takes them.

    Args:
      box: Borders x0, y0, x1, y1.
      frame_size: Height and width of the frames.
    """
    height, width = frame_size
    space = box.__array_namespace__()
    far = space.asarray([width, height, width, height], dtype=box.dtype)
    return space.clip(box, 0, space.broadcast_to(far, box.shape))


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
