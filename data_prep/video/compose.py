"""A rendered face laid back into the frame it belongs to, at the frame's own resolution.

Blending happens in a square of the frame that covers what the aligned picture does: the published crop's share of the
face, but in the frame's own pixels, so that nothing is resampled but the face itself. Rims and transitions keep the
published size relative to the face. Only luma and chroma that blending changes are written.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from asccl_jax.image.blending import inner_mask
from asccl_jax.image.warping import inverse_affine, joined
from data_prep.media.encode import Box, YuvPicture
from data_prep.reconstruct.drawing import ALIGNED_SIZE, warped
from data_prep.video.face_masks import drawn_area

__all__ = ["BLENDS", "RenderedFace", "aligned_at", "blending_box", "compose", "composed_box", "mixed_change"]

BLENDS = ("pyramid", "copy")

Blend = Literal["pyramid", "copy"]

_LEVELS = 4
"""Levels of the published pyramids, for a crop of 256 pixels; one more for each time that the box is twice as large."""

_EDGE = 0.5
"""Value of a mask at its edge."""

_SOFT_PX = 1.0
"""Standard deviation, in aligned pixels, of the blur that takes the steps out of the inner mask's edge."""


@dataclasses.dataclass(frozen=True, eq=False)
class RenderedFace:
    """What is known of the face of a frame.

    Attributes:
      image: Rendered, aligned, RGB; black where nothing was drawn.
      align: Matrix from pixels of the upright frame to those of the 256-pixel aligned picture.
      mask: Where the face is to be seen, aligned; its edge lies at half.
    """

    image: UInt8[np.ndarray, "s s 3"]
    align: Float[np.ndarray, "2 3"]
    mask: Float32[np.ndarray, "256 256"]


def compose(picture: YuvPicture, face: RenderedFace, *, blend: Blend = "pyramid") -> None:
    """Changes a frame to show a rendered face.

    Args:
      picture: The frame, which is written to.
      face: What it is to show.
      blend: "pyramid" joins details within pixels and light over many; "copy" pastes.
    """
    box = blending_box(face.align)
    height, width = picture.size
    if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:
        return
    before = picture.rgb(box)
    picture.change(box, before, composed_box(before, face, box, blend=blend))


def composed_box(
    before: UInt8[np.ndarray, "n n 3"], face: RenderedFace, box: Box, *, blend: Blend = "pyramid"
) -> UInt8[np.ndarray, "n n 3"]:
    """Returns what a box of the frame becomes; where blending adds nothing, exactly what it was.

    Args:
      before: The box's pixels.
      face: What is to be seen in it.
      box: Where it lies in the frame.
      blend: See `compose`.
    """
    side = len(before)
    to_box = np.array([[1.0, 0.0, -box[0]], [0.0, 1.0, -box[1]]])
    small = len(face.image)
    # From the box to the aligned picture at the renderer's size, and to that at which masks are kept.
    align, align_mask = (joined(aligned_at(face.align, size), inverse_affine(to_box)) for size in (small, ALIGNED_SIZE))
    # Black around the face would bleed into its rim, here and in the pyramids: the frame itself takes its place.
    around = warped(before, None, align, small, sharp=True)
    filled = np.where(drawn_area(face.image, small)[..., None], face.image, around)
    shown = warped(filled, None, inverse_affine(align), side, sharp=True)
    back = inverse_affine(align_mask)
    change = np.where(_in_box(face.mask, back, side)[..., None], shown.astype(np.float32) - before, np.float32(0))
    if blend == "pyramid":
        levels = max(1, round(_LEVELS + float(np.log2(side / ALIGNED_SIZE))))
        inner = cv2.GaussianBlur(inner_mask((face.mask >= _EDGE).astype(np.float32)), (0, 0), _SOFT_PX)
        change = mixed_change(change, _in_box(inner, back, side).astype(np.float32), levels)
    return np.rint(np.clip(before + change, 0, 255)).astype(np.uint8)


def mixed_change(
    change: Float32[np.ndarray, "h w c"], mask: Float32[np.ndarray, "h w"], levels: int
) -> Float32[np.ndarray, "h w c"]:
    """Returns what pyramids mixed by a mask make of the difference between a face and its background.

    Pyramids are linear: this on top of the background is `geometry.blending.blend_pyramids`, which takes the mask as it
    is before erosion; one pyramid instead of two, and OpenCV's own halving and doubling, an order of magnitude faster.

    Args:
      change: Face minus background.
      mask: 1 where the face's details are taken.
      levels: Of the pyramids, besides the picture itself.
    """
    changes, masks = [change], [mask]
    for _ in range(levels):
        changes.append(cv2.pyrDown(changes[-1]))
        masks.append(cv2.pyrDown(masks[-1]))
    mixed = changes[-1] * masks[-1][..., None]
    for level in reversed(range(levels)):
        size = changes[level].shape[1::-1]
        detail = changes[level] - cv2.pyrUp(changes[level + 1], dstsize=size)
        mixed = cv2.pyrUp(mixed, dstsize=size) + detail * masks[level][..., None]
    return np.asarray(mixed)


def blending_box(align: Float[np.ndarray, "2 3"]) -> Box:
    """Returns the upright square of the frame that is as large as the aligned picture there and has its middle.

    Its sides are even and begin on even pixels, as chroma has half the frame's pixels.
    """
    back = inverse_affine(align)
    middle = np.full(2, (ALIGNED_SIZE - 1) / 2) @ back[:, :2].T + back[:, 2]
    half = max(8, int(np.ceil(ALIGNED_SIZE * np.sqrt(abs(np.linalg.det(back[:, :2]))) / 2)))
    left, top = (2 * int(np.rint((place - half) / 2)) for place in (middle + 0.5).tolist())
    return left, top, left + 2 * half, top + 2 * half


def aligned_at(align: Float[np.ndarray, "2 3"], size: int) -> Float[np.ndarray, "2 3"]:
    """Returns the matrix to an aligned picture of another size than 256; pixel centres are at integers."""
    scale = size / ALIGNED_SIZE
    scaled = align * scale
    scaled[:, 2] += (scale - 1) / 2
    return scaled


def _in_box(
    mask: Float32[np.ndarray, "256 256"], back: Float[np.ndarray, "2 3"], side: int
) -> Bool[np.ndarray, "side side"]:
    """Where a soft aligned mask is in a box; interpolating before the cut leaves no steps in a large one's edge."""
    return np.asarray(cv2.warpAffine(mask, back, (side, side), flags=cv2.INTER_LINEAR) >= _EDGE)
