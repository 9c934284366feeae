"""DECA's networks as an encoder of clips."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.head.drawing_rules import CROP_SIZE
from data_prep.head_fit.clip_fit import FLAG_MISSING, SpeakerShape, crop_transforms
from data_prep.head_fit.flame_files import DECA_MODEL
from data_prep.media.decode import BrokenMediaError
from data_prep.reconstruct.drawing import warped
from data_prep.reconstruct.encoders import ClipCodes, frame_flags, original_size
from data_prep.reconstruct.smoothing import fill_gaps
from data_prep.reconstruct.sources import SourceFrame, chunks
from data_prep.reconstruct.track_step import Track
from data_prep.reconstruct.work import one_thread
from DECA_torch_bridge.deca_model import DecaWeights, coarse_encoder, detail_encoder, read_deca_model, split_coarse

__all__ = ["DecaEncoder", "load_deca"]


class DecaEncoder:
    """The published networks, on crops around the landmarks as the published code cuts them.

    Args:
      weights: Of the networks.
      device: Where they run.
      batch: Crops at a time.
    """

    def __init__(self, weights: DecaWeights, *, device: str = "cpu", batch: int = 16) -> None:
        self._device, self._batch = torch.device(device), batch
        self._coarse, self._detail = coarse_encoder(), detail_encoder()
        self._coarse.load_state_dict(weights.E_flame)
        self._detail.load_state_dict(weights.E_detail)
        for network in (self._coarse, self._detail):
            network.eval().to(self._device)

    def speaker_shape(self, clips: Sequence[tuple[Track, Iterable[SourceFrame]]], *, neutral: bool) -> SpeakerShape:
        """See `ClipEncoder`: the median over the frames with a face, of those that could be read."""
        shapes = [self._encode(track, frames)["shape"][track.found & track.readable] for track, frames in clips]
        joined = np.concatenate(shapes)
        note = "" if neutral else "no neutral clip of the speaker: the shape may hold some of the expression"
        return SpeakerShape(np.median(joined, axis=0), neutral, len(joined), note)

    def encode(
        self, track: Track, frames: Iterable[SourceFrame], shape: SpeakerShape | None, *, neutral: bool
    ) -> ClipCodes:
        """See `ClipEncoder`; frames without a face lie on the line between their neighbours."""
        del neutral
        found = track.found
        codes = {
            name: fill_gaps(value, track.frame_index, found) for name, value in self._encode(track, frames).items()
        }
        if shape is not None:
            codes["shape"] = np.repeat(shape.coefficients[None].astype(np.float32), len(found), axis=0)
        tform = crop_transforms(_filled_landmarks(track))
        missing = np.where(found, 0, FLAG_MISSING).astype(np.uint8)
        notes: tuple[str, ...] = (shape.note,) if shape is not None and shape.note else ()
        if not found.all():
            notes += (f"{int((~found).sum())} of {len(found)} frames without a face, interpolated",)
        return ClipCodes(
            CodeDict(
                frame_index=track.frame_index,
                tform=tform,
                original_size=original_size(track),
                **codes,
            ),
            frame_flags(track, missing),
            np.full(len(found), np.nan),
            notes=notes,
        )

    def _encode(self, track: Track, frames: Iterable[SourceFrame]) -> dict[str, np.ndarray]:
        tforms = crop_transforms(_filled_landmarks(track))
        parts: list[dict[str, np.ndarray]] = []
        start = 0
        for chunk in chunks(iter(frames), self._batch):
            some = tforms[start : start + len(chunk)]
            crops = np.stack(
                [
                    warped(frame.image, frame.placement, tform[:2], CROP_SIZE)
                    for frame, tform in zip(chunk, some, strict=True)
                ]
            )
            parts.append(self._encode_crops(crops))
            start += len(chunk)
        if start != len(tforms):
            raise BrokenMediaError(f"{start} frames where there were {len(tforms)} before: the file has changed")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def _encode_crops(self, crops: UInt8[np.ndarray, "b 224 224 3"]) -> dict[str, np.ndarray]:
        images = torch.from_numpy(crops).to(self._device).float() / 255
        with one_thread():
            coarse = split_coarse(self._coarse(images))._asdict()
            coarse["detail"] = self._detail(images)
        return {name: value.cpu().numpy() for name, value in coarse.items()}


@functools.lru_cache(maxsize=1)
def load_deca(assets: Path) -> DecaWeights:
    """Returns DECA's weights; kept for later calls in the same process."""
    return read_deca_model(assets / DECA_MODEL)


def _filled_landmarks(track: Track) -> Float[np.ndarray, "t 68 2"]:
    return fill_gaps(track.landmarks.astype(np.float64), track.frame_index, track.found)
