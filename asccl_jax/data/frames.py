"""Decoded frames of a data set, at random: by record number, or by clip and position in its video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8

from asccl_jax.data.dataset import open_records
from asccl_jax.data.manifest import FrameIndex, Manifest, read_manifest
from asccl_jax.data.schema import FrameRecord
from asccl_jax.errors import InputError

__all__ = [
    "FrameStore",
    "difference_image",
    "strip",
    "to_image",
]


class FrameStore:
    """The frames of one split. Opens nothing but the manifest and the shards' indices until a frame is read.

    Safe to read from several threads, and to pickle.

    Args:
      directory: Data set.
      split: Its split.
      manifest: The data set's manifest, where it has been read already.

    Attributes:
      manifest: The data set's manifest.
      index: Clips and positions to record numbers.
      image_size: Side of every image in pixels.

    Raises:
      InputError: No such data set or split, or a shard that is missing or truncated.
    """

    def __init__(self, directory: Path | str, split: str, *, manifest: Manifest | None = None) -> None:
        self.manifest = read_manifest(directory) if manifest is None else manifest
        self.index = FrameIndex(self.manifest, split)
        self.image_size = self.manifest.image_size
        self._records = open_records(directory, self.manifest, split, "frames")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> FrameRecord:
        """Returns the frame of a record number; raises `InputError` where the record is damaged."""
        data = self._records[number]
        try:
            return FrameRecord.decode(data)
        except InputError as error:
            raise InputError(f"{self._records.describe(number)}: {error}") from error

    def record(self, clip: str, frame: int) -> FrameRecord:
        """Returns the frame at a position of a clip; raises `InputError` where it was not kept."""
        return self[self.index.record(clip, frame)]

    def image(self, clip: str, frame: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the decoded image at a position of a clip."""
        return self.decode([self.index.record(clip, frame)])[0]

    def images(self, frames: Sequence[tuple[str, int]]) -> UInt8[np.ndarray, "n h w 3"]:
        """Returns the decoded images at (clip, position) each."""
        return self.decode([self.index.record(clip, frame) for clip, frame in frames])

    def decode(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """Returns the decoded images of some record numbers, RGB, 0..255.

        Raises:
          InputError: A record is damaged, or its image is no JPEG of the data set's size.
        """
        images = np.empty((len(numbers), self.image_size, self.image_size, 3), np.uint8)
        for number, image in zip(numbers, images, strict=True):
            data = self._records[number]
            try:
                content = FrameRecord.decode_field(data, "image")
                # The decoder writes into the batch itself; a copy would cost as much as a tenth of the decoding.
                decoded = simplejpeg.decode_jpeg(content, "RGB", buffer=image)
            except ValueError as error:  # of which InputError is one
                raise InputError(f"{self._records.describe(number)}: no readable image ({error})") from error
            if decoded.shape != image.shape:
                size = " x ".join(map(str, decoded.shape[:2]))
                expected = f"expected {self.image_size} x {self.image_size}"
                raise InputError(f"{self._records.describe(number)}: its image has {size} pixels, {expected}")
        return images


# Frames side by side in one picture, a row a way of making them.

_GAP = 2
_PAPER = 255
_GAIN = 3


def strip(rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]]) -> UInt8[np.ndarray, "y x 3"]:
    """Returns one picture of frames, with thin white lines between them.

    >>> strip([[np.zeros((4, 4, 3), np.uint8)] * 3] * 2).shape
    (10, 16, 3)

    Args:
      rows: Frames of each row, all of one size; as many in every row.

    Raises:
      InputError: No frame, or rows of different lengths.
    """
    counts = {len(row) for row in rows}
    if len(counts) != 1 or not rows[0]:
        raise InputError(f"strip of rows with {sorted(counts)} frames: expected as many in each, one or more")
    lines = [np.concatenate(_parted(row, axis=1), axis=1) for row in rows]
    return np.concatenate(_parted(lines, axis=0), axis=0)


def difference_image(
    image: UInt8[np.ndarray, "h w 3"], truth: UInt8[np.ndarray, "h w 3"], *, gain: int = _GAIN
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the absolute difference of two pictures, made brighter so that it is seen."""
    difference = np.abs(image.astype(np.int32) - truth.astype(np.int32))
    return np.minimum(gain * difference, 255).astype(np.uint8)


def _parted(pictures: Sequence[np.ndarray], *, axis: int) -> list[np.ndarray]:
    """The pictures with a white line between each two."""
    shape = list(pictures[0].shape)
    shape[axis] = _GAP
    line = np.full(shape, _PAPER, np.uint8)
    return [part for picture in pictures for part in (line, picture)][1:]


# Colours as networks have them, -1..1, and as pictures do, 0..255.


def to_image(frame: Float[np.ndarray, "*b h w 3"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Returns a picture of -1..1 as 0..255, clipped and rounded (upstream rounds down).

    >>> to_image(np.array([[[-1.0, 0.0, 1.2]]]))
    array([[[  0, 128, 255]]], dtype=uint8)
    """
    return np.rint(np.clip((frame + 1) * 127.5, 0, 255)).astype(np.uint8)
