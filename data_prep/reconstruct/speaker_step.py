"""Second step: the shape of each speaker from the neutral clips, frozen for all that follows."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from asccl_jax.work import atomic_file, file_facts
from data_prep.head_fit.clip_fit import SpeakerShape
from data_prep.reconstruct.clip_inputs import InputClip
from data_prep.reconstruct.encoders import frames_of, make_encoder
from data_prep.reconstruct.reconstruct_settings import EncoderSettings, TrackSettings
from data_prep.reconstruct.sources import read_source
from data_prep.reconstruct.track_step import Track
from data_prep.reconstruct.work import Step, Task, WorkFolder, digest

__all__ = ["SpeakerTask", "load_shape", "save_shape"]


@dataclasses.dataclass(frozen=True)
class SpeakerTask(Task):
    """Finds the shape of a speaker.

    Attributes:
      clips: Clips to take it from: the neutral ones, or all where there are none.
      neutral: Whether they are neutral.
      track_keys: Keys of their tracks.
    """

    clips: tuple[InputClip, ...]
    neutral: bool
    track_keys: tuple[str, ...]
    tracks: TrackSettings
    encoder: EncoderSettings
    work: WorkFolder
    step: Step = "speakers"

    @property
    def speaker(self) -> str:
        """Whose shape."""
        return self.clips[0].clip.speaker

    @property
    def name(self) -> str:
        """A harmless file name for the speaker."""
        return speaker_file_name(self.speaker)

    @functools.cached_property
    def key(self) -> str:
        """See `Task`."""
        encoder = self.encoder.described()
        encoder.pop("smooth")
        return digest(self.speaker, self.neutral, self.track_keys, encoder, file_facts(self.encoder.assets))

    def compute(self) -> dict[str, Any]:
        """Writes the shape."""
        encoder = make_encoder(self.encoder)
        clips = []
        for item in self.clips:
            track = Track.load(self.work.file("tracks", item.clip.file_name, ".npz"))
            frames = read_source(item, image_fps=self.tracks.image_fps, max_frames=self.tracks.max_frames)
            clips.append((track, frames_of(frames, track)))
        shape = encoder.speaker_shape(clips, neutral=self.neutral)
        save_shape(self.work.file("speakers", self.name, ".npz"), shape)
        return {
            "speaker": self.speaker,
            "neutral": shape.neutral,
            "clips": [item.name for item in self.clips],
            "frames": shape.frames,
            "note": shape.note,
        }


def speaker_file_name(speaker: str) -> str:
    """Returns a file name for a speaker, unlike that of any other."""
    readable = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in speaker)[:60]
    return readable if readable == speaker else f"{readable}-{digest(speaker)[:8]}"


def save_shape(path: Path, shape: SpeakerShape) -> None:
    """Writes a speaker's shape as an npz file: coefficients, neutral, frames, note."""
    with atomic_file(path) as file:
        np.savez(
            file,
            coefficients=shape.coefficients,
            neutral=np.array(shape.neutral),
            frames=np.array(shape.frames),
            note=np.array(shape.note),
        )


def load_shape(path: Path) -> SpeakerShape:
    """Returns a saved shape."""
    with np.load(path, allow_pickle=False) as archive:
        return SpeakerShape(
            archive["coefficients"], bool(archive["neutral"]), int(archive["frames"]), str(archive["note"])
        )
