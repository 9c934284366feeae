"""What a person asks of a reconstruction."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from asccl_jax.errors import InputError
from asccl_jax.paths import readable
from data_prep.media.landmarks import LandmarkSettings
from data_prep.prepare.prepare_settings import RunnerSettings

__all__ = ["ENCODERS", "INPUT_LAYOUTS", "OUTPUT_LAYOUTS", "EncoderSettings", "Reconstruction", "TrackSettings"]

ENCODERS = ("landmarks", "deca")
INPUT_LAYOUTS = ("auto", "video", "videos", "list", "mead", "ravdess", "records", "folders")
OUTPUT_LAYOUTS = ("records", "folders")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackSettings:
    """How a clip's frames and landmarks are read.

    Attributes:
      landmarks: Back end of the landmarks.
      image_fps: Frame rate of folders of images.
      max_frames: Frames after which a clip is cut off, or None.
    """

    landmarks: LandmarkSettings = dataclasses.field(default_factory=lambda: LandmarkSettings(backend="precomputed"))
    image_fps: float = 30.0
    max_frames: int | None = None

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        for name in ("image_fps", "max_frames"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name.replace('_', ' ')} {value}: expected more than 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """How frames become codes and pictures.

    Attributes:
      encoder: "landmarks" fits a head to the landmarks; "deca" is the published networks.
      assets: Folder of FLAME's and DECA's files; None takes the built-in head.
      table: Landmark table of the detector, see `fitting.landmark_tables`.
      smooth: Standard deviation in frames of a Gaussian over time; 0 leaves the codes alone.
      freeze_shape: Give all frames the speaker's shape; the `landmarks` encoder always does.
      device: Where torch computes.
      batch: Frames encoded or drawn at a time.
    """

    encoder: Literal["landmarks", "deca"] = "landmarks"
    assets: Path | None = None
    table: str = "mediapipe"
    smooth: float = 0.0
    freeze_shape: bool = True
    device: str = "cpu"
    batch: int = 16

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        if self.encoder not in ENCODERS:
            raise InputError(f"encoder {self.encoder!r}: expected one of {', '.join(ENCODERS)}")
        if self.encoder == "deca" and self.assets is None:
            raise InputError("encoder deca: needs --assets DIR with deca_model.tar; see `asccl head check DIR`")
        if not 0 <= self.smooth <= 100:
            raise InputError(f"--smooth {self.smooth}: expected 0 to 100 frames")
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: expected at least 1")

    def described(self) -> dict[str, Any]:
        """Returns what the results depend on: no paths and no device."""
        return {
            "encoder": self.encoder,
            "head": "builtin" if self.assets is None else "flame",
            "landmark_table": self.table,
            "smooth": self.smooth,
            "freeze_shape": self.freeze_shape,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One run of `asccl data reconstruct`.

    Attributes:
      source: A video, a folder of videos, a list (CSV), a data set of records, or a NED folder.
      output: Directory to be made.
      layout: One of `INPUT_LAYOUTS`.
      layout_out: "records", or "folders": the published layout, one folder a speaker.
      train_folders: Folders as training wants them: sub-folders of 50 frames, mouths in the eye files, no full frames.
      name: What to call the data set; empty takes the source's name.
      speaker: Whose faces videos without labels show; empty takes each video for another speaker.
      emotion: Emotion of videos without labels; empty leaves it open.
      levels: MEAD's emotion intensities.
      validation_speakers: Speakers held out; empty takes the default of `data_prep.media.layouts`.
      test_speakers: Speakers kept to report on; None takes the default of the layout.
      track: How frames and landmarks are read.
      encoder: How they become codes and pictures.
      shard: This process's part and the number of parts, from (1, 1).
      shard_bytes: Size beyond which a shard of records takes no further clip.
      runner: Where the work is done.
      keep_work: Whether the work folder stays once all is done.
    """

    source: Path
    output: Path
    layout: str = "auto"
    layout_out: str = "records"
    train_folders: bool = False
    name: str = ""
    speaker: str = ""
    emotion: str = ""
    levels: tuple[int, ...] = (3,)
    validation_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...] | None = None
    track: TrackSettings = dataclasses.field(default_factory=TrackSettings)
    encoder: EncoderSettings = dataclasses.field(default_factory=EncoderSettings)
    shard: tuple[int, int] = (1, 1)
    shard_bytes: int = 512_000_000
    runner: RunnerSettings = dataclasses.field(default_factory=RunnerSettings)
    keep_work: bool = False

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise InputError(f"--shard {part}/{parts}: expected I/N with I from 1 to N")
        if self.layout not in INPUT_LAYOUTS:
            raise InputError(f"--layout {self.layout}: expected one of {', '.join(INPUT_LAYOUTS)}")
        if self.layout_out not in OUTPUT_LAYOUTS:
            raise InputError(f"--layout-out {self.layout_out}: expected one of {', '.join(OUTPUT_LAYOUTS)}")
        if self.shard_bytes < 1:
            raise InputError("the size of a shard must be positive")
        if self.runner.workers < 1:
            raise InputError(f"--workers {self.runner.workers}: expected at least 1")

    @property
    def title(self) -> str:
        """Name of the data set."""
        return readable(self.name or self.source.resolve().stem)

    def described(self) -> dict[str, Any]:
        """Returns what the results depend on, for manifest and report: no paths, so that equal runs say the same."""
        return {
            "layout": self.layout,
            "landmarks": self.track.landmarks.backend,
            "max_frames": self.track.max_frames,
            **self.encoder.described(),
        }
