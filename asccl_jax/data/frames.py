"""Decoded frames of a data set, at random: by record number, or by clip and position in its video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from asccl_jax.data.dataset_reader import open_records
from asccl_jax.data.manifest import FrameIndex, Manifest, read_manifest
from asccl_jax.data.schema import FrameRecord
from asccl_jax.errors import InputError

__all__ = ["FrameStore"]


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
