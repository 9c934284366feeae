"""Frames of a clip in the pixels of its source, wherever they are stored: a video, records, a NED folder.

Records hold faces cut out and squashed to a square. Their pictures come back with the matrix that says where in the
source frame each of their pixels lies, so that everything after this file works in one kind of coordinates.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8
from PIL import Image

from asccl_jax.data.frames import FrameStore
from asccl_jax.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from data_prep.media.decode import BrokenMediaError, Frame, read_frames
from data_prep.reconstruct.clip_inputs import InputClip
from data_prep.reconstruct.folders import subject_images

__all__ = ["SourceFrame", "read_source"]


@dataclasses.dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame of a clip.

    Attributes:
      index: 0-based number in the source.
      time_s: Presentation time.
      image: RGB, 0..255; None where this one picture cannot be read.
      placement: Matrix from pixels of the source frame to those of the image; None if they are the same.
      landmarks: 68 landmarks in pixels of the source frame, where the source has them.
    """

    index: int
    time_s: float
    image: UInt8[np.ndarray, "h w 3"] | None
    placement: Float[np.ndarray, "2 3"] | None = None
    landmarks: Float[np.ndarray, "68 2"] | None = None

    def as_frame(self) -> Frame:
        """Returns the frame as `data_prep` knows it."""
        return Frame(index=self.index, source_index=self.index, time_s=self.time_s, image=self.image)


def read_source(item: InputClip, *, image_fps: float, max_frames: int | None) -> Iterator[SourceFrame]:
    """Yields the frames of a clip in order.

    Args:
      item: The clip.
      image_fps: Frame rate of folders of images.
      max_frames: Frames after which to stop, or None.

    Raises:
      BrokenMediaError: Nothing can be read, or the file breaks off.
    """
    readers = {"video": _video, "records": _records, "folders": _folder}
    frames = readers[item.kind](item, image_fps)
    return itertools.islice(frames, max_frames)


def _video(item: InputClip, image_fps: float) -> Iterator[SourceFrame]:
    for frame in read_frames(item.clip.video, image_fps=image_fps):
        yield SourceFrame(frame.index, frame.time_s, frame.image)


def _records(item: InputClip, image_fps: float) -> Iterator[SourceFrame]:
    del image_fps
    directory = item.clip.video
    store = _store(directory, item.split, _written(directory))
    for index in store.index.positions(item.name).tolist():
        record = store.record(item.name, index)
        corner, extent = record.crop_box[:2].astype(np.float64), np.diff(record.crop_box.reshape(2, 2), axis=0)[0]
        image = simplejpeg.decode_jpeg(record.image, "RGB")
        scale = image.shape[0] / extent
        # A box holds borders: pixel 0 of a frame reaches from 0 to 1 there.
        shift = (0.5 - corner) * scale - 0.5
        placement = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
        landmarks = (record.landmarks - shift) / scale
        yield SourceFrame(index, record.time_s, image, placement, landmarks.astype(np.float32))


@functools.lru_cache(maxsize=8)
def _store(directory: Path, split: str, written: tuple[int, int]) -> FrameStore:
    """The frames of a split, opened once a process: a manifest of thousands of clips takes a second to read."""
    return FrameStore(directory, split, manifest=_manifest(directory, written))


@functools.lru_cache(maxsize=1)
def _manifest(directory: Path, written: tuple[int, int]) -> Manifest:
    del written  # what tells one manifest from the next
    return read_manifest(directory)


def _written(directory: Path) -> tuple[int, int]:
    stat = (directory / MANIFEST_NAME).stat()
    return stat.st_mtime_ns, stat.st_ino


def _folder(item: InputClip, image_fps: float) -> Iterator[SourceFrame]:
    for number, path in subject_images(item.clip.video).items():
        try:
            with Image.open(path) as opened:
                image = np.asarray(opened.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            image = None
        yield SourceFrame(number, number / image_fps, image)


def chunks(frames: Iterator[SourceFrame], size: int) -> Iterator[Sequence[SourceFrame]]:
    """Yields frames so many at a time."""
    while chunk := list(itertools.islice(frames, size)):
        yield chunk


def require_frames(count: int) -> None:
    """Raises `BrokenMediaError` for a clip without any frame."""
    if not count:
        raise BrokenMediaError("no picture can be decoded")
