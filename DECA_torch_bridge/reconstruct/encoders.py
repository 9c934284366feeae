"""Two ways from a clip to its codes behind one interface: `landmarks` fits a head, `deca` asks the networks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from data_prep.decode import BrokenMediaError
from DECA_torch_bridge.deca_model import DECA_MODEL, DecaWeights, read_deca_model
from DECA_torch_bridge.encoders import coarse_encoder, detail_encoder, split_coarse
from DECA_torch_bridge.fitting.clip_fit import FLAG_MISSING, LandmarkFitter, SpeakerShape
from DECA_torch_bridge.fitting.deca_camera import crop_transforms
from DECA_torch_bridge.head_assets import HeadAssets, load_assets
from DECA_torch_bridge.reconstruct.frame_cameras import crop_cameras
from DECA_torch_bridge.reconstruct.pictures import warped
from DECA_torch_bridge.reconstruct.settings import EncoderSettings
from DECA_torch_bridge.reconstruct.smoothing import fill_gaps
from DECA_torch_bridge.reconstruct.sources import SourceFrame, chunks
from DECA_torch_bridge.reconstruct.track_step import Track

__all__ = [
    "FLAG_UNREADABLE",
    "ClipCodes",
    "ClipEncoder",
    "DecaEncoder",
    "LandmarkEncoder",
    "head_assets",
    "load_deca",
    "make_encoder",
]

FLAG_UNREADABLE = 8
"""Bit of a frame's flags, beside those of `fitting.clip_fit`: the picture could not be read."""

_CROP = 224


@dataclasses.dataclass(frozen=True, eq=False)
class ClipCodes:
    """What an encoder says of a clip: one row a frame, none left out.

    Attributes:
      codes: The code dict, with `tform`.
      flags: Bits per frame, see `schema.RenderRecord`.
      residual_px: Median distance of found and fitted landmarks in pixels of the source; NaN where not known.
      units_valid: Whether strengths of action units mean something.
      notes: What a user should know.
    """

    codes: CodeDict
    flags: UInt8[np.ndarray, " t"]
    residual_px: Float[np.ndarray, " t"]
    units_valid: bool = False
    notes: tuple[str, ...] = ()


class ClipEncoder(Protocol):
    """From the frames of clips to their codes."""

    def speaker_shape(self, clips: Sequence[tuple[Track, Iterable[SourceFrame]]], *, neutral: bool) -> SpeakerShape:
        """Returns the shape that all clips of a speaker have in common.

        Args:
          clips: Neutral clips of the speaker; others where there are none.
          neutral: Whether they are neutral.
        """

    def encode(
        self, track: Track, frames: Iterable[SourceFrame], shape: SpeakerShape | None, *, neutral: bool
    ) -> ClipCodes:
        """Returns the codes of a clip.

        Args:
          track: The clip's landmarks.
          frames: The clip's frames, in the order of the track; an encoder may leave them unread.
          shape: Of the speaker; None leaves it to each frame, where the encoder can.
          neutral: Whether the face is known to be neutral.
        """


class LandmarkEncoder:
    """Fits the head to the landmarks of whole clips; looks at no picture.

    Args:
      assets: The head.
      table: Name of the detector's landmark table.
    """

    def __init__(self, assets: HeadAssets, table: str) -> None:
        self._fitter = LandmarkFitter(assets, table)

    def speaker_shape(self, clips: Sequence[tuple[Track, Iterable[SourceFrame]]], *, neutral: bool) -> SpeakerShape:
        """See `ClipEncoder`."""
        landmarks = [_dense(track) for track, _ in clips]
        fps = float(np.median([track.fps for track, _ in clips]))
        return self._fitter.fit_speaker(landmarks, neutral=neutral, fps=fps)

    def encode(
        self, track: Track, frames: Iterable[SourceFrame], shape: SpeakerShape | None, *, neutral: bool
    ) -> ClipCodes:
        """See `ClipEncoder`."""
        del frames
        fit = self._fitter.fit_clip(_dense(track), shape, neutral=neutral, fps=track.fps)
        rows = track.frame_index - track.frame_index[0]
        tform = fit.crop_transform[rows]
        codes = CodeDict(
            frame_index=track.frame_index,
            shape=np.repeat(fit.shape[None].astype(np.float32), len(rows), axis=0),
            exp=fit.expression[rows].astype(np.float32),
            pose=fit.pose[rows].astype(np.float32),
            cam=crop_cameras(fit.camera[rows], tform).astype(np.float32),
            tform=tform,
            original_size=_original_size(track),
        )
        return ClipCodes(codes, _flags(track, fit.flags[rows]), fit.residual_px[rows], fit.units_valid, fit.notes)


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
                original_size=_original_size(track),
                **codes,
            ),
            _flags(track, missing),
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
                    warped(frame.image, frame.placement, tform[:2], _CROP)
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
        coarse = split_coarse(self._coarse(images))._asdict()
        coarse["detail"] = self._detail(images)
        return {name: value.cpu().numpy() for name, value in coarse.items()}


def make_encoder(settings: EncoderSettings) -> ClipEncoder:
    """Returns the encoder, ready to run; kept for later calls in the same process.

    Raises:
      InputError: Assets are missing or not what they should be.
    """
    return _make_encoder(settings.encoder, settings.assets, settings.table, settings.device, settings.batch)


@functools.lru_cache(maxsize=1)
def _make_encoder(encoder: str, assets: Path | None, table: str, device: str, batch: int) -> ClipEncoder:
    if encoder == "deca":
        assert assets is not None
        return DecaEncoder(load_deca(assets), device=device, batch=batch)
    return LandmarkEncoder(head_assets(assets), table)


@functools.lru_cache(maxsize=1)
def head_assets(directory: Path | None) -> HeadAssets:
    """Returns the head; kept for later calls in the same process."""
    if directory is not None and not directory.is_dir():
        raise InputError(f"--assets {directory}: no such folder; `asccl assets check DIR` says what goes into it")
    return load_assets(directory)


@functools.lru_cache(maxsize=1)
def load_deca(assets: Path) -> DecaWeights:
    """Returns DECA's weights; kept for later calls in the same process."""
    return read_deca_model(assets / DECA_MODEL)


def _dense(track: Track) -> Float[np.ndarray, "n 68 2"]:
    """Landmarks of every frame from the first to the last: frames that the source left out have none."""
    rows = track.frame_index - track.frame_index[0]
    dense = np.full((rows[-1] + 1, 68, 2), np.nan)
    dense[rows] = track.landmarks
    return dense


def _filled_landmarks(track: Track) -> Float[np.ndarray, "t 68 2"]:
    return fill_gaps(track.landmarks.astype(np.float64), track.frame_index, track.found)


def _original_size(track: Track) -> tuple[int, int] | None:
    height, width = track.size
    return (width, height) if height else None


def _flags(track: Track, flags: UInt8[np.ndarray, " t"]) -> UInt8[np.ndarray, " t"]:
    unreadable: Bool[np.ndarray, " t"] = ~track.readable
    return flags | np.where(unreadable, FLAG_UNREADABLE, 0).astype(np.uint8)


def frames_of(frames: Iterator[SourceFrame], track: Track) -> Iterator[SourceFrame]:
    """Yields frames as long as they are those of the track.

    Raises:
      BrokenMediaError: They are not.
    """
    for frame, index in zip(frames, track.frame_index.tolist(), strict=False):
        if frame.index != index:
            raise BrokenMediaError(f"frame {frame.index} where there was {index} before: the file has changed")
        yield frame
