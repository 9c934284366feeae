"""Two ways from a clip to its codes behind one interface: `landmarks` fits a head, `deca` asks the networks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError, require_torch
from data_prep.head_fit.clip_fit import LandmarkFitter, SpeakerShape
from data_prep.head_fit.head_assets import HeadAssets, load_assets
from data_prep.media.decode import BrokenMediaError
from data_prep.reconstruct.reconstruct_settings import EncoderSettings
from data_prep.reconstruct.smoothing import crop_cameras
from data_prep.reconstruct.sources import SourceFrame
from data_prep.reconstruct.track_step import Track

__all__ = [
    "FLAG_UNREADABLE",
    "ClipCodes",
    "ClipEncoder",
    "LandmarkEncoder",
    "frame_flags",
    "frames_of",
    "head_assets",
    "make_encoder",
    "original_size",
]

FLAG_UNREADABLE = 8
"""Bit of a frame's flags, beside those of `fitting.clip_fit`: the picture could not be read."""


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
            original_size=original_size(track),
        )
        return ClipCodes(codes, frame_flags(track, fit.flags[rows]), fit.residual_px[rows], fit.units_valid, fit.notes)


def make_encoder(settings: EncoderSettings) -> ClipEncoder:
    """Returns the encoder, ready to run; kept for later calls in the same process.

    Raises:
      InputError: Assets are missing or not what they should be.
    """
    return _make_encoder(settings.encoder, settings.assets, settings.table, settings.device, settings.batch)


@functools.lru_cache(maxsize=1)
def _make_encoder(encoder: str, assets: Path | None, table: str, device: str, batch: int) -> ClipEncoder:
    if encoder == "deca":
        require_torch("--encoder deca")
        from DECA_torch_bridge.deca_encoder import DecaEncoder, load_deca

        assert assets is not None
        return DecaEncoder(load_deca(assets), device=device, batch=batch)
    return LandmarkEncoder(head_assets(assets), table)


@functools.lru_cache(maxsize=1)
def head_assets(directory: Path | None) -> HeadAssets:
    """Returns the head; kept for later calls in the same process."""
    if directory is not None and not directory.is_dir():
        raise InputError(f"--assets {directory}: no such folder; `asccl head check DIR` says what goes into it")
    return load_assets(directory)


def _dense(track: Track) -> Float[np.ndarray, "n 68 2"]:
    """Landmarks of every frame from the first to the last: frames that the source left out have none."""
    rows = track.frame_index - track.frame_index[0]
    dense = np.full((rows[-1] + 1, 68, 2), np.nan)
    dense[rows] = track.landmarks
    return dense


def original_size(track: Track) -> tuple[int, int] | None:
    """Returns width and height of the source's frames; None where they are not known."""
    height, width = track.size
    return (width, height) if height else None


def frame_flags(track: Track, flags: UInt8[np.ndarray, " t"]) -> UInt8[np.ndarray, " t"]:
    """Returns the flags with those of unreadable pictures added."""
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
