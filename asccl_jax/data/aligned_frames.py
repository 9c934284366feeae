"""Aligned frames of talking faces with the pictures a renderer draws them from, whatever they are stored in."""

from __future__ import annotations

import abc
import collections
import dataclasses
import io
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, Real, UInt8
from PIL import Image

from asccl_jax.errors import InputError
from asccl_jax.geometry.eyes import draw_eyes, median_point

__all__ = ["AlignedClips", "AlignedFrame", "RenderedClip", "aligned_frame", "decode_picture", "eyes_at", "find_runs"]

_OPAQUE = 128


@dataclasses.dataclass(frozen=True, eq=False)
class AlignedFrame:
    """One frame, RGB, 0..255; its arrays may be shared and must not be changed.

    Attributes:
      image: The frame, background and all.
      nmfc_image: Normalised mean face coordinates of the head model.
      shape_image: The head model's surface in grey.
      eyes_image: Discs where the pupils are.
      mask: 255 where the face is, else 0.
      mouth_centre: Middle of the mouth (x, y) in whole pixels.
      face_box: Borders x0, y0, x1, y1 of the face, see `geometry.face_box`.
      eye_points: Contours and pupils (`geometry.eyes`), in pixels of the picture as it is stored.
      stored_size: Side of the picture as it is stored.
    """

    image: UInt8[np.ndarray, "h w 3"]
    nmfc_image: UInt8[np.ndarray, "h w 3"]
    shape_image: UInt8[np.ndarray, "h w 3"]
    eyes_image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w 1"]
    mouth_centre: Int32[np.ndarray, "2"]
    face_box: Float32[np.ndarray, "4"]
    eye_points: Int64[np.ndarray, "14 2"]
    stored_size: int

    @property
    def bytes(self) -> int:
        """Memory that the pictures take."""
        pictures = (self.image, self.nmfc_image, self.shape_image, self.eyes_image, self.mask)
        return sum(picture.nbytes for picture in pictures)


@dataclasses.dataclass(frozen=True)
class RenderedClip:
    """A clip whose frames are aligned and rendered.

    Attributes:
      clip: Its id.
      speaker: Whose face.
      emotion: One of `schema.EMOTIONS`, or `schema.UNLABELLED`.
      sentence: What is said; empty where nobody knows.
      split: "train", "validation" or "test".
      fps: Frames a second.
      runs: Runs (first, last) of frames that can be used, both ends included.
    """

    clip: str
    speaker: str
    emotion: str
    sentence: str
    split: str
    fps: float
    runs: tuple[tuple[int, int], ...]

    @property
    def frames(self) -> Int64[np.ndarray, " n"]:
        """Positions of the frames that can be used, rising."""
        return np.concatenate([np.arange(first, last + 1) for first, last in self.runs])


class AlignedClips(abc.ABC):
    """Clips whose frames can be read at random, at one size; safe to read from several threads.

    Frames read are kept decoded as far as the memory allowed reaches, the last ones used.

    Args:
      image_size: Side of the pictures wanted, in pixels.
      cache_bytes: Memory for frames kept.

    Attributes:
      image_size: See above.
      clips: The clips by id.
      left_out: Frames of each clip that cannot be used; clips without any are not in it.
    """

    clips: Mapping[str, RenderedClip]
    left_out: Mapping[str, int]

    def __init__(self, image_size: int, *, cache_bytes: int) -> None:
        if image_size < 8:
            raise InputError(f"image size {image_size}: expected at least 8 pixels")
        self.image_size = image_size
        self._kept: collections.OrderedDict[tuple[str, int], AlignedFrame] = collections.OrderedDict()
        self._free = cache_bytes
        self._lock = threading.Lock()

    def read(self, clip: str, frame: int) -> AlignedFrame:
        """Returns a frame.

        Raises:
          InputError: There is no such frame, or what is stored of it is damaged.
        """
        key = (clip, frame)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        found = self._load(clip, frame)
        with self._lock:
            if key not in self._kept:  # another thread may have been faster
                self._kept[key] = found
                self._free -= found.bytes
            while self._free < 0:
                self._free += self._kept.popitem(last=False)[1].bytes
        return found

    def entry(self, clip: str) -> RenderedClip:
        """Returns a clip by its id; raises `InputError` where there is none."""
        if clip not in self.clips:
            shown = ", ".join(list(self.clips)[:5])
            raise InputError(f"no clip {clip!r} with usable frames; there are {len(self.clips)}, as {shown}")
        return self.clips[clip]

    @abc.abstractmethod
    def facts(self, clip: str) -> list[Any]:
        """Returns what changes, as JSON has it, when a frame of a clip does or others can be used; reads no frame."""

    @abc.abstractmethod
    def _load(self, clip: str, frame: int) -> AlignedFrame:
        """Reads a frame from where it is stored."""


def find_runs(frames: Int[np.ndarray, " n"]) -> tuple[tuple[int, int], ...]:
    """Returns the runs (first, last) of consecutive numbers.

    >>> find_runs(np.array([0, 1, 2, 5, 7, 8]))
    ((0, 2), (5, 5), (7, 8))
    """
    pieces = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1) if frames.size else []
    return tuple((int(piece[0]), int(piece[-1])) for piece in pieces)


def aligned_frame(
    *,
    image: UInt8[np.ndarray, "s s 3"],
    nmfc_image: UInt8[np.ndarray, "s s 3"],
    shape_image: UInt8[np.ndarray, "s s 3"],
    mask: Bool[np.ndarray, "s s"],
    eye_points: Int64[np.ndarray, "14 2"],
    mouth: Real[np.ndarray, "n 2"],
    face_box: Float[np.ndarray, "4"],
    size: int,
) -> AlignedFrame:
    """Returns a frame at another size, averaged where it shrinks.

    Args:
      image: The frame as it is stored; likewise the following.
      nmfc_image: See `AlignedFrame`.
      shape_image: See `AlignedFrame`.
      mask: Where the face is.
      eye_points: Contours and pupils.
      mouth: Landmarks of the mouth.
      face_box: See `AlignedFrame`.
      size: Side wanted.
    """
    stored = len(image)
    cover = np.asarray(Image.fromarray(mask).convert("L").resize((size, size), Image.Resampling.BOX))
    frame = AlignedFrame(
        image=_resized(image, size),
        nmfc_image=_resized(nmfc_image, size),
        shape_image=_resized(shape_image, size),
        eyes_image=eyes_at(eye_points, stored, size),
        mask=np.where(cover >= _OPAQUE, np.uint8(255), np.uint8(0))[:, :, None],
        mouth_centre=median_point((mouth + 0.5) * (size / stored) - 0.5),
        face_box=(face_box * (size / stored)).astype(np.float32),
        eye_points=eye_points,
        stored_size=stored,
    )
    for array in (frame.image, frame.nmfc_image, frame.shape_image, frame.eyes_image, frame.mask):
        array.flags.writeable = False
    return frame


def eyes_at(points: Int64[np.ndarray, "14 2"], stored: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Returns the eye image, drawn at the size the points belong to and averaged: a disc may be smaller than a pixel.

    Args:
      points: Contours and pupils.
      stored: Side of the picture whose pixels they count.
      size: Side wanted.
    """
    return _resized(draw_eyes(points, (stored, stored)), size)


def decode_picture(content: bytes, *, channels: int = 3) -> UInt8[np.ndarray, "h w *c"]:
    """Returns a picture file's pixels, RGB or (one channel) grey.

    Raises:
      InputError: It is no picture.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.array(picture.convert("RGB" if channels == 3 else "L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"no readable picture ({error})") from error


def _resized(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
