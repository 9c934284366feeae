"""Rendered faces of a clip with where they belong: masks in aligned coordinates whose edge holds still over time.

A frame's mask is where the renderer drew, and of that the face: inside the outline of the landmarks and on the head
model, as the renderers' training has it, or as a face segmentation sees it. Masks are averaged over the frames around,
with Gaussian weights, so that detectors' jitter does not move the seam.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from scipy import ndimage

from asccl_jax.data.aligned_frames import decode_picture
from asccl_jax.data.dataset import open_records
from asccl_jax.data.manifest import FrameIndex, Manifest
from asccl_jax.data.schema import RenderRecord
from asccl_jax.errors import InputError
from asccl_jax.image.polygon import face_outline
from data_prep.reconstruct.drawing import ALIGNED_SIZE

__all__ = ["FaceMasks", "MaskRule", "drawn_area", "largest_piece", "outline_rule", "read_face"]

MaskRule = Callable[[RenderRecord], Bool[np.ndarray, "256 256"]]
"""Where the face is in the aligned picture of a record."""

_REACH = 3
"""Standard deviations after which a neighbour no longer counts."""

_SOFT_PX = 1.5
"""Standard deviation, in aligned pixels, of the blur that takes the steps out of a mask's edge."""


class FaceMasks:
    """The masks of a clip's frames.

    Args:
      directory: Data set of renders.
      manifest: Its manifest.
      clip: The clip.
      faces: Rendered picture of each frame that has one.
      rule: Where faces are.
      over_frames: Standard deviation of the average over time, in frames; 0 takes each frame by itself.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        clip: str,
        faces: Mapping[int, Path],
        *,
        rule: MaskRule,
        over_frames: float = 2.0,
    ) -> None:
        self._index = FrameIndex(manifest, manifest.clips[clip].split)
        self._records = open_records(directory, manifest, self._index.split, "renders")
        self._clip, self._faces, self._rule, self._over_frames = clip, faces, rule, over_frames
        self._reach = int(np.ceil(_REACH * over_frames))
        self._kept: collections.OrderedDict[int, Bool[np.ndarray, "256 256"]] = collections.OrderedDict()

    def mask(self, frame: int) -> Float32[np.ndarray, "256 256"]:
        """Returns the mask of a frame that has a face, 0 to 1, at whose half the edge lies."""
        numbers = [number for number in self._around(frame).tolist() if number in self._faces]
        weights = np.exp(-0.5 * ((np.array(numbers) - frame) / max(self._over_frames, 1e-6)) ** 2)
        total = np.zeros((ALIGNED_SIZE, ALIGNED_SIZE), np.float32)
        for number, weight in zip(numbers, (weights / weights.sum()).tolist(), strict=True):
            total += np.float32(weight) * self._single(number)
        return np.asarray(cv2.GaussianBlur(total, (0, 0), _SOFT_PX))

    def _around(self, frame: int) -> Int64[np.ndarray, " n"]:
        return np.arange(frame - self._reach, frame + self._reach + 1)

    def _single(self, number: int) -> Bool[np.ndarray, "256 256"]:
        found = self._kept.get(number)
        if found is None:
            record = RenderRecord.decode(self._records[self._index.record(self._clip, number)])
            found = self._rule(record) & drawn_area(read_face(self._faces[number]))
            self._kept[number] = found
            if len(self._kept) > 2 * self._reach + 1:
                self._kept.popitem(last=False)
        return found


def outline_rule(record: RenderRecord) -> Bool[np.ndarray, "256 256"]:
    """Returns where the head model is inside the outline of the landmarks: the renderers' own masks."""
    head = decode_picture(record.aligned_alpha_image, channels=1) > 127
    return head & face_outline(record.aligned_landmarks, head.shape)


def read_face(path: Path) -> UInt8[np.ndarray, "s s 3"]:
    """Returns a rendered face.

    Raises:
      InputError: It is no picture, or not square.
    """
    try:
        image = decode_picture(path.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(f"{path}: no readable picture ({error}); render the clip again") from error
    if image.shape[0] != image.shape[1]:
        raise InputError(f"{path}: {image.shape[1]} x {image.shape[0]} pixels, expected a square aligned face")
    return image


def drawn_area(face: UInt8[np.ndarray, "s s 3"], size: int = ALIGNED_SIZE) -> Bool[np.ndarray, "size size"]:
    """Returns where a renderer drew: all that is not black, and black inside of it (a pupil, a mouth)."""
    drawn = ndimage.binary_fill_holes(face.any(axis=-1))
    enlarged = cv2.resize(drawn.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged >= 0.5)


def largest_piece(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns the largest connected piece of a mask; pixels that touch at a corner belong together."""
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())[1:]
    return np.asarray(pieces == 1 + int(sizes.argmax()))
