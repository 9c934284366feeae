"""Aligned frames from the records that a reconstruction (`asccl reconstruct`) has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from asccl_jax.data.aligned_frames import (
    AlignedClips,
    AlignedFrame,
    RenderedClip,
    aligned_frame,
    decode_picture,
    find_runs,
)
from asccl_jax.data.dataset_reader import open_records, read_render_flags
from asccl_jax.data.manifest import FrameIndex, read_manifest
from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import RenderRecord
from asccl_jax.errors import InputError
from asccl_jax.geometry.eyes import MOUTH, eye_points
from asccl_jax.geometry.face_box import landmark_box
from asccl_jax.geometry.face_outline import face_outline

__all__ = ["REGIONS", "UNTRUSTED", "RecordClips"]

REGIONS = ("face", "head")
"""What a mask may cover."""

UNTRUSTED = 1 | 4 | 8
"""Flags of frames left out: no face was found, a poor fit, an unreadable picture (see `schema.RenderRecord`)."""


class RecordClips(AlignedClips):
    """The clips of a data set of renders.

    A frame's mask is where its head model was drawn, and of that the face: `geometry.face_outline`. Pupils are looked
    for in the aligned frame.

    Args:
      directory: Data set.
      image_size: Side of the pictures wanted, in pixels.
      detail: Take the surface with wrinkles rather than the coarse one.
      region: "face", or "head" for all of the head model, with the scalp, ears and neck.
      untrusted: Flags of frames to leave out; 0 takes all.
      cache_bytes: Memory for decoded frames.

    Raises:
      InputError: No such data set, no renders in it, not the pictures wanted, or no frame to trust.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        image_size: int = 256,
        detail: bool = False,
        region: str = "face",
        untrusted: int = UNTRUSTED,
        cache_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(image_size, cache_bytes=cache_bytes)
        if region not in REGIONS:
            raise InputError(f"region {region!r}: expected {' or '.join(REGIONS)}")
        manifest = read_manifest(directory)
        splits = [name for name, split in manifest.splits.items() if split.renders]
        if not splits:
            raise InputError(f"{directory} has no renders; make records that have them with `asccl reconstruct`")
        self._directory, self._region = Path(directory), region
        self._shape_picture = "aligned_detail_image" if detail else "aligned_shape_image"
        self._records = {name: open_records(directory, manifest, name, "renders") for name in splits}
        self._index = {name: FrameIndex(manifest, name) for name in splits}
        self.clips, self.left_out = {}, {}
        for split in splits:
            self._check_pictures(self._records[split])
            flags = read_render_flags(directory, manifest, split)
            for clip, entry in sorted(self._index[split].clips.items()):
                trusted = (flags[clip] & untrusted) == 0
                positions = self._index[split].positions(clip)
                if not trusted.all():
                    self.left_out[clip] = int((~trusted).sum())
                if trusted.any():
                    runs = find_runs(positions[trusted])
                    who = (entry.speaker, entry.emotion, entry.sentence)
                    self.clips[clip] = RenderedClip(clip, *who, split, entry.fps, runs)
        if not self.clips:
            raise InputError(f"{directory}: none of {sum(self.left_out.values())} frames can be trusted (their flags)")

    def _check_pictures(self, records: RecordSource) -> None:
        if not len(records):
            return
        wanted = {"aligned_image", "aligned_nmfc_image", self._shape_picture, "aligned_alpha_image"}
        absent = wanted & RenderRecord.decode(records[0]).absent()
        if absent:
            raise InputError(
                f"{self._directory}: its records have no {', '.join(sorted(absent))}; wrinkles need DECA's decoder"
            )

    def facts(self, clip: str) -> list[Any]:
        """See `AlignedClips`."""
        entry = self.entry(clip)
        numbers = self._index[entry.split].all_records(clip)
        return [self._region, entry.runs, self._records[entry.split].digest(numbers.tolist())]

    def _load(self, clip: str, frame: int) -> AlignedFrame:
        split = self.entry(clip).split
        number = self._index[split].record(clip, frame)
        records = self._records[split]
        try:
            return self._decode(RenderRecord.decode(records[number]))
        except ValueError as error:  # of which InputError is one
            raise InputError(f"{records.describe(number)}: {error}") from error

    def _decode(self, record: RenderRecord) -> AlignedFrame:
        image = simplejpeg.decode_jpeg(record.aligned_image, "RGB")
        nmfc, shape, alpha = (
            _picture(record, name, len(image))
            for name in ("aligned_nmfc_image", self._shape_picture, "aligned_alpha_image")
        )
        landmarks = record.aligned_landmarks
        mask = alpha[:, :, 0] > 127
        if self._region == "face":
            mask &= face_outline(landmarks, mask.shape)
        return aligned_frame(
            image=image,
            nmfc_image=nmfc,
            shape_image=shape,
            mask=mask,
            eye_points=eye_points(image, landmarks),
            mouth=landmarks[MOUTH],
            face_box=landmark_box(landmarks),
            size=self.image_size,
        )


def _picture(record: RenderRecord, name: str, side: int) -> UInt8[np.ndarray, "h w 3"]:
    picture = decode_picture(getattr(record, name))
    if picture.shape[:2] != (side, side):
        raise InputError(f"its {name!r} has {picture.shape[0]} x {picture.shape[1]} pixels, its frame {side} x {side}")
    return picture
