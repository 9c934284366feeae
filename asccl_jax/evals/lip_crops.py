"""The pictures of a talking face that SyncNet sees: cut as in its own programme, or as in the authors' evaluation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy import ndimage

from asccl_jax.errors import InputError
from asccl_jax.geometry.resize import resize_linear

__all__ = ["aligned_face_crops", "face_boxes", "nearest_frames", "syncnet_crops"]

SIDE = 224
"""Height and width of what the network takes, in pixels."""

AUTHORS_MARGIN = 35
"""Pixels that the authors cut from each side of an aligned face of 256."""

_ALIGNED_SIDE = 256
_ABOVE_LANDMARKS = 0.3
_SMOOTHED_FRAMES = 13
_CROP_SCALE = 0.4
_OUTSIDE = 110


def nearest_frames(times_s: Float[np.ndarray, " t"], rate_fps: float) -> Int[np.ndarray, " moments"]:
    """Returns the index of the frame that is nearest to each moment of another, constant frame rate.

    The first moment is that of the first frame; there are as many as the clip is long, the last frame's own time
    included. Frames are dropped or repeated, never mixed.

    >>> nearest_frames(np.arange(7) / 30, 25.0).tolist()
    [0, 1, 2, 4, 5, 6]

    Args:
      times_s: Presentation time of each frame, rising.
      rate_fps: Rate wanted.

    Raises:
      InputError: No frame, or times that do not rise.
    """
    if not len(times_s) or not (np.diff(times_s) > 0).all():
        raise InputError(f"presentation times of {len(times_s)} frames: expected one or more, rising")
    times = times_s.astype(np.float64) - times_s[0]
    last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / rate_fps
    moments = np.arange(max(1, round((times[-1] + last) * rate_fps))) / rate_fps
    return np.searchsorted((times[1:] + times[:-1]) / 2, moments)


def aligned_face_crops(
    faces: Iterable[UInt8[np.ndarray, "s s 3"]], *, margin_px: int = AUTHORS_MARGIN
) -> UInt8[np.ndarray, "t 224 224 3"]:
    """Returns the middle of aligned faces as the authors' evaluation cuts it, in BGR.

    Args:
      faces: Aligned faces, RGB, 0..255; a margin is scaled where they are not of 256 pixels.
      margin_px: Pixels of 256 cut from each side: 35 for MEAD; their script for RAVDESS cuts none.

    Raises:
      InputError: No face, or nothing is left of one.
    """

    def cut(face: np.ndarray) -> np.ndarray:
        side = len(face)
        margin = round(margin_px * side / _ALIGNED_SIDE)
        if side <= 2 * margin:
            raise InputError(f"a margin of {margin} pixels leaves nothing of a face of {side}: choose a smaller one")
        return _for_network(face[margin : side - margin, margin : side - margin])

    return _stacked([cut(face) for face in faces])


def face_boxes(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 4"]:
    """Returns about the boxes x0, y0, x1, y1 that a face detector finds, from the landmarks; NaN where those are.

    SyncNet's programme starts from a detector's boxes, which reach up to the hair. The landmarks' own box, raised by
    0.3 of its width, is that of MTCNN on eight real clips (mean over each within 0.06 of the width on all sides).
    """
    points = landmarks.astype(np.float64)
    low, high = points.min(axis=1), points.max(axis=1)
    low[:, 1] -= _ABOVE_LANDMARKS * (high[:, 0] - low[:, 0])
    return np.concatenate([low, high], axis=1)


def syncnet_crops(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], boxes: Float[np.ndarray, "t 4"]
) -> UInt8[np.ndarray, "t 224 224 3"]:
    """Returns faces as SyncNet's own programme cuts them, in BGR.

    With s half the longer side of a face's box: from s above its middle to 1.8 s below and 1.4 s to either side, grey
    (110) outside the frame. Size and middle go through a median filter of 13 frames first. That programme also
    stores crops in a lossy video on the way, which is left out.

    Args:
      frames: Whole frames, RGB, 0..255.
      boxes: Borders x0, y0, x1, y1 of the face in each frame, pixels; where NaN, they are interpolated in time.

    Raises:
      InputError: No box at all, or as many boxes as frames there are not.
    """
    squares = _smooth_squares(boxes)
    cut: list[np.ndarray] = []
    for frame in frames:
        if len(cut) == len(squares):
            raise InputError(f"{len(boxes)} boxes of more frames: expected one of each frame")
        cut.append(_cut_square(frame, squares[len(cut)]))
    if len(cut) < len(squares):
        raise InputError(f"{len(boxes)} boxes of {len(cut)} frames: expected one of each frame")
    return _stacked(cut)


def _smooth_squares(boxes: Float[np.ndarray, "t 4"]) -> Float[np.ndarray, "t 3"]:
    """Half side and middle (x, y) of the face in each frame."""
    known = np.isfinite(boxes).all(axis=1)
    if not known.any():
        raise InputError(f"no face in any of {len(boxes)} frames: lip synchrony needs one")
    size = boxes[:, 2:] - boxes[:, :2]
    squares = np.column_stack([size.max(axis=1) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2]).astype(np.float64)
    at = np.arange(len(boxes))
    filled = np.column_stack([np.interp(at, at[known], column[known]) for column in squares.T])
    # Upstream: run_pipeline.py takes zeros beyond both ends: a smaller face there, and none at all in short clips.
    return ndimage.median_filter(filled, size=(_SMOOTHED_FRAMES, 1), mode="reflect")


def _cut_square(frame: UInt8[np.ndarray, "h w 3"], square: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "224 224 3"]:
    half, x, y = (float(value) for value in square)
    wide, low = half * (1 + _CROP_SCALE), half * (1 + 2 * _CROP_SCALE)
    left, right = int(np.floor(x - wide)), int(np.floor(x + wide))
    top, bottom = int(np.floor(y - half)), int(np.floor(y + low))
    height, width = frame.shape[:2]
    crop = np.full((max(1, bottom - top), max(1, right - left), 3), _OUTSIDE, np.uint8)
    seen = frame[max(0, top) : max(0, min(height, bottom)), max(0, left) : max(0, min(width, right))]
    if seen.size:
        row, column = max(0, -top), max(0, -left)
        crop[row : row + seen.shape[0], column : column + seen.shape[1]] = seen
    return _for_network(crop)


def _for_network(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "224 224 3"]:
    return np.ascontiguousarray(resize_linear(image, (SIDE, SIDE))[..., ::-1])


def _stacked(images: list[np.ndarray]) -> UInt8[np.ndarray, "t 224 224 3"]:
    if not images:
        raise InputError("no frames to cut faces from: lip synchrony needs a clip")
    return np.stack(images)
