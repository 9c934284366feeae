"""The face of a clip, cut out of whole frames as the published pipeline cuts it: one square for the whole clip."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from asccl_jax.evals.lip_crops import face_boxes

__all__ = ["CROP_SIDE", "ClipCrop", "clip_crop"]

CROP_SIDE = 256

_MARGIN = 70 / (256 - 70)
"""Of the published crops: 70 of 256 pixels are margin."""


@dataclasses.dataclass(frozen=True)
class ClipCrop:
    """A square of a clip's frames.

    Attributes:
      left: Its left border, pixels.
      top: Its upper border.
      side: Its side.
    """

    left: int
    top: int
    side: int

    def image(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256 256 3"]:
        """Returns the square of a frame, black outside the frame, at 256 pixels."""
        box = (self.left, self.top, self.left + self.side, self.top + self.side)
        resized = Image.fromarray(frame).crop(box).resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def points(self, landmarks: Float32[np.ndarray, "t 68 2"]) -> Float32[np.ndarray, "t 68 2"]:
        """Returns landmarks in pixels of the square."""
        corner = np.array([self.left, self.top], np.float32)
        return ((landmarks - corner + 0.5) * np.float32(CROP_SIDE / self.side) - 0.5).astype(np.float32)


def clip_crop(landmarks: Float32[np.ndarray, "t 68 2"]) -> ClipCrop | None:
    """Returns the square around the median of the face's boxes, or None for a clip without a face.

    Upstream: NED's detect.py smooths a square per frame; one for all frames leaves the head's own movement as it is.
    """
    known = np.isfinite(landmarks).all(axis=(1, 2))
    if not known.any():
        return None
    left, top, right, bottom = np.median(face_boxes(landmarks[known]), axis=0)
    height = bottom - top
    side = max(2, round(height * (1 + _MARGIN)))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    return ClipCrop(round(middle_x - side / 2), round(middle_y - side / 2), side)
