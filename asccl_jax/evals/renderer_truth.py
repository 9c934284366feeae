"""The exact frames that a perfect manipulation would show: those of a twin clip, seen as the source's are aligned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from asccl_jax.data.aligned_frames import decode_picture
from asccl_jax.data.dataset_reader import open_records
from asccl_jax.data.manifest import FrameIndex, Manifest, read_manifest
from asccl_jax.data.schema import RenderRecord
from asccl_jax.data.twins import Twin
from asccl_jax.evals.landmark_probe import MOUTH
from asccl_jax.geometry.affine import inverse, joined, moved
from asccl_jax.geometry.face_outline import face_outline

__all__ = ["ALIGNED_SIDE", "RenderRecords", "TrueFrame", "scaled_points", "warped"]

ALIGNED_SIDE = 256
"""Side of stored aligned pictures; distances are told in their pixels, whatever the size of the pictures compared."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrueFrame:
    """What a frame should look like.

    Attributes:
      image: The frame, background and all.
      face: Where the face is in it.
      mouth: Landmarks of the mouth in its pixels.
    """

    image: UInt8[np.ndarray, "s s 3"]
    face: Bool[np.ndarray, "s s"]
    mouth: Float[np.ndarray, "20 2"]


class RenderRecords:
    """The render records of a data set, by clip and frame.

    Args:
      directory: Data set.

    Attributes:
      manifest: Its manifest.

    Raises:
      InputError: No such data set.
    """

    def __init__(self, directory: Path) -> None:
        self.manifest: Manifest = read_manifest(directory)
        splits = [name for name, split in self.manifest.splits.items() if split.renders]
        self._index = {name: FrameIndex(self.manifest, name) for name in splits}
        self._records = {name: open_records(directory, self.manifest, name, "renders") for name in splits}

    def mouth(self, clip: str, frame: int, size: int) -> Float[np.ndarray, "20 2"]:
        """Returns the landmarks of a frame's mouth in pixels of its aligned picture at a size."""
        data = self._data(clip, frame)
        landmarks = RenderRecord.decode_field(data, "aligned_landmarks").astype(np.float64)
        return scaled_points(landmarks[MOUTH], ALIGNED_SIDE, size)

    def true_frame(self, twin: Twin, frame: int, size: int) -> TrueFrame:
        """Returns the target's frame in the coordinates of the source's.

        The two are aligned each by their own landmarks, which an emotion moves; the face itself stays in its place.

        Args:
          twin: Source and target.
          frame: Number of the frame in both.
          size: Side of the picture wanted.
        """
        target = RenderRecord.decode(self._data(twin.target, frame))
        matrix, landmarks = self._moved_landmarks(twin, frame)
        stored = decode_picture(target.aligned_image)
        image = warped(stored, matrix)
        points = scaled_points(landmarks, len(stored), size)
        if len(image) != size:
            image = np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
        return TrueFrame(image, face_outline(points, (size, size)), points[MOUTH])

    def true_mouth(self, twin: Twin, frame: int) -> Float[np.ndarray, "20 2"]:
        """Returns the landmarks of a true frame's mouth in pixels of the aligned picture of its source."""
        return self._moved_landmarks(twin, frame)[1][MOUTH]

    def _moved_landmarks(self, twin: Twin, frame: int) -> tuple[Float[np.ndarray, "2 3"], Float[np.ndarray, "68 2"]]:
        """The matrix from the target's aligned picture to the source's, and the target's landmarks there."""
        data = [self._data(clip, frame) for clip in (twin.source, twin.target)]
        wanted, given = (RenderRecord.decode_field(one, "align_transform").astype(np.float64) for one in data)
        matrix = joined(wanted, inverse(given))
        return matrix, moved(RenderRecord.decode_field(data[1], "aligned_landmarks").astype(np.float64), matrix)

    def _data(self, clip: str, frame: int) -> bytes:
        split = self.manifest.clips[clip].split
        return self._records[split][self._index[split].record(clip, frame)]


def scaled_points(points: Float[np.ndarray, "n 2"], side: int, size: int) -> Float[np.ndarray, "n 2"]:
    """Returns points of a picture in pixels of the same picture at another size.

    >>> scaled_points(np.array([[-0.5, 3.5]]), 8, 16)
    array([[-0.5,  7.5]])
    """
    return (points + 0.5) * (size / side) - 0.5


def warped(image: UInt8[np.ndarray, "h w 3"], matrix: Float[np.ndarray, "2 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture moved, bicubic; black where nothing was.

    Args:
      image: The picture.
      matrix: From its pixels to those wanted, counted from the middle of the first.
    """
    back = np.linalg.inv(matrix[:, :2])
    # Pillow counts from the corner of the first pixel.
    offset = -back @ matrix[:, 2] + 0.5 - back @ np.array([0.5, 0.5])
    data = np.concatenate([back, offset[:, None]], axis=1).ravel().tolist()
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    return np.array(picture.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))
