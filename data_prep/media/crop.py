"""The face crop: from 68 landmarks to a square image, as released and corrected.

Boxes and coordinates are those of `asccl_jax.image.face_box`, from which "corrected" takes its box.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8
from PIL import Image

from asccl_jax.image import face_box

__all__ = ["CropMode", "FaceCrop", "UnusableFaceError", "crop_face", "encode_jpeg", "landmark_box"]

CropMode = Literal["corrected", "released"]

RELEASED_FRAME_SIZE = 224
"""Side to which the released code squashes a whole frame before it looks for the face."""

LEAST_VISIBLE = 0.5
"""Share of a face's box that must lie inside the frame; less of a face teaches nothing."""

JPEG_QUALITY = 95


class UnusableFaceError(ValueError):
    """A face that no crop can be made of; the message is the reason, as the report words it."""


@dataclasses.dataclass(frozen=True)
class FaceCrop:
    """A face cut out of a frame.

    Attributes:
      image: The crop, RGB, 0..255.
      landmarks: The 68 landmarks in pixels of the crop, pixel centres at integers.
      box: Borders x0, y0, x1, y1 of the crop in pixels of the source frame.
    """

    image: UInt8[np.ndarray, "s s 3"]
    landmarks: Float[np.ndarray, "68 2"]
    box: Float[np.ndarray, "4"]


def landmark_box(
    landmarks: Float[np.ndarray, "68 2"], *, frame_size: tuple[int, int], mode: CropMode = "corrected"
) -> Float[np.ndarray, "4"]:
    """Returns the borders x0, y0, x1, y1 of the face's crop in the source frame.

    "corrected" is the tight box of the landmarks, widened by a tenth of its width and height on each side in floating
    point and clamped to the frame: no rotation, no invented pixels. "released" follows the public `align_face.py`:
    points truncated to integers in the frame squashed to 224 x 224, OpenCV's bounding rectangle, the same margin
    truncated to integers.

    Args:
      landmarks: Points (x, y) in pixels of the source frame.
      frame_size: Height and width of the source frame.
      mode: Which of the two.

    Raises:
      UnusableFaceError: A landmark is not finite, the box is empty, or too much of it lies outside the frame.
    """
    if not np.isfinite(landmarks).all():
        raise UnusableFaceError("no face found")
    height, width = frame_size
    if mode == "released":
        left, top, right, bottom = _released_box(landmarks, frame_size)
        scale_x, scale_y = width / RELEASED_FRAME_SIZE, height / RELEASED_FRAME_SIZE
        return np.array([left * scale_x, top * scale_y, right * scale_x, bottom * scale_y], np.float32)
    box = face_box.landmark_box(landmarks.astype(np.float64))
    inside = face_box.inside_frame(box, frame_size)
    sides, visible = box[2:] - box[:2], inside[2:] - inside[:2]
    if np.prod(visible) < LEAST_VISIBLE * np.prod(sides) or np.any(sides < 2):
        raise UnusableFaceError("face mostly outside the frame")
    return inside.astype(np.float32)


def crop_face(
    frame: UInt8[np.ndarray, "h w 3"],
    landmarks: Float[np.ndarray, "68 2"],
    *,
    size: int = 224,
    mode: CropMode = "corrected",
) -> FaceCrop:
    """Returns the face cut out along `landmark_box` and resized to a square.

    "corrected" samples the floating-point box once, bilinearly where it enlarges and with the triangle filter widened
    to the step where it shrinks, so that nothing aliases. "released" squashes the frame to 224 x 224, cuts whole
    pixels and enlarges bilinearly (OpenCV), which is blurred but what the published metric was trained on.

    Args:
      frame: Source frame, RGB.
      landmarks: Points (x, y) in pixels of the source frame.
      size: Side of the crop in pixels; the released code takes 512.
      mode: Which of the two.

    Raises:
      UnusableFaceError: See `landmark_box`.
    """
    frame_size = (frame.shape[0], frame.shape[1])
    box = landmark_box(landmarks, frame_size=frame_size, mode=mode)
    if mode == "released":
        image = _released_crop(frame, _released_box(landmarks, frame_size), size)
    else:
        left, top, right, bottom = (float(border) for border in box)
        resized = Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom))
        image = np.asarray(resized)
    scale = size / (box[2:] - box[:2])
    points = (landmarks.astype(np.float32) + np.float32(0.5) - box[:2]) * scale - np.float32(0.5)
    return FaceCrop(image=image, landmarks=points.astype(np.float32), box=box)


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"], *, quality: int = JPEG_QUALITY) -> bytes:
    """Returns an RGB image as JPEG with full colour resolution (4:4:4): lips and eyes live in the colour."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444"
    )


def _released_box(landmarks: Float[np.ndarray, "68 2"], frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Integer borders in the squashed frame; the right and bottom ones may lie beyond it."""
    height, width = frame_size
    scale = np.array([RELEASED_FRAME_SIZE / width, RELEASED_FRAME_SIZE / height])
    squashed = ((landmarks.astype(np.float64) + 0.5) * scale - 0.5).astype(np.int32)  # truncates toward zero
    left, top, box_width, box_height = cv2.boundingRect(squashed.reshape(-1, 1, 2))
    left, top = int(left - face_box.MARGIN * box_width), int(top - face_box.MARGIN * box_height)
    right, bottom = (
        left + int((1 + 2 * face_box.MARGIN) * box_width),
        top + int((1 + 2 * face_box.MARGIN) * box_height),
    )
    # Upstream: align_face.py slices with negative corners here, so that the crop is empty or a strip of the far
    # side; such frames then go missing without a word. They are refused and counted.
    if left < 0 or top < 0:
        raise UnusableFaceError("released crop would start outside the frame")
    if left >= RELEASED_FRAME_SIZE or top >= RELEASED_FRAME_SIZE:
        raise UnusableFaceError("face mostly outside the frame")
    return left, top, min(right, RELEASED_FRAME_SIZE), min(bottom, RELEASED_FRAME_SIZE)


def _released_crop(
    frame: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    left, top, right, bottom = box
    squashed = cv2.resize(frame, (RELEASED_FRAME_SIZE, RELEASED_FRAME_SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(squashed[top:bottom, left:right], (size, size), interpolation=cv2.INTER_LINEAR))
