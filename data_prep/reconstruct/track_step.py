"""First step: the landmarks of every frame of a clip, in pixels of the source."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from asccl_jax.data.manifest import MANIFEST_NAME
from asccl_jax.work import file_facts, write_atomically
from data_prep.media.decode import BrokenMediaError
from data_prep.media.landmarks import LandmarkBackend, LandmarkSettings, make_backend
from data_prep.reconstruct.clip_inputs import InputClip
from data_prep.reconstruct.folders import stored_codes_folder
from data_prep.reconstruct.reconstruct_settings import TrackSettings
from data_prep.reconstruct.sources import SourceFrame, chunks, read_source, require_frames
from data_prep.reconstruct.work import Step, Task, WorkFolder, counted, digest, one_thread

__all__ = ["Track", "TrackTask"]

_CHUNK = 16  # Frames held in memory at once.


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """What is known of a clip before anything is fitted.

    Attributes:
      frame_index: Number of each frame in the source.
      time_s: Presentation times.
      landmarks: Pixels of the source frame; NaN where no face was found.
      readable: Which pictures could be read.
      size: Height and width of the source frames in pixels; 0, 0 if not known.
    """

    frame_index: Int[np.ndarray, " t"]
    time_s: Float[np.ndarray, " t"]
    landmarks: Float[np.ndarray, "t 68 2"]
    readable: Bool[np.ndarray, " t"]
    size: tuple[int, int]

    @property
    def fps(self) -> float:
        """Mean frame rate; 30 for a single frame."""
        span = self.time_s[-1] - self.time_s[0]
        steps = self.frame_index[-1] - self.frame_index[0]
        return round(float(steps / span), 4) if span > 0 else 30.0

    @property
    def found(self) -> Bool[np.ndarray, " t"]:
        """Frames with a face."""
        return np.isfinite(self.landmarks).all(axis=(1, 2))

    def save(self, path: Path, **more: np.ndarray) -> None:
        """Writes an npz file, with further fields."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dataclasses.asdict(self), **more)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Track:
        """Returns a saved track."""
        with np.load(path, allow_pickle=False) as archive:
            fields = {field.name: archive[field.name] for field in dataclasses.fields(cls)}
        height, width = fields.pop("size").tolist()
        return cls(**fields, size=(height, width))


@dataclasses.dataclass(frozen=True)
class TrackTask(Task):
    """Finds the landmarks of a clip."""

    item: InputClip
    settings: TrackSettings
    work: WorkFolder
    step: Step = "tracks"

    @property
    def name(self) -> str:
        """The clip's file name."""
        return self.item.clip.file_name

    @functools.cached_property
    def key(self) -> str:
        """See `Task`."""
        clip, kind = self.item.clip, self.item.kind
        paths = [clip.video, clip.landmarks]
        if kind == "records":
            paths = [clip.video / MANIFEST_NAME]
        elif kind == "folders":
            paths = [clip.video / "images", clip.video / "DECA", clip.landmarks]
        settings = dataclasses.asdict(self.settings)
        settings["landmarks"].pop("device")
        return digest(dataclasses.asdict(clip), kind, settings, file_facts(*paths))

    def compute(self) -> dict[str, Any]:
        """Writes the track and returns what was found."""
        track = self._read()
        if not track.found.any() and not self._has_codes():
            reason = "unreadable picture" if not track.readable.any() else "no face found"
            raise BrokenMediaError(f"{reason}, in all {len(track.found)} frames")
        track.save(self.work.file("tracks", self.name, ".npz"))
        return {
            "frames": len(track.found),
            "faces": int(track.found.sum()),
            "unreadable": int((~track.readable).sum()),
            "fps": track.fps,
        }

    def _has_codes(self) -> bool:
        return self.item.kind == "folders" and stored_codes_folder(self.item.clip.video) is not None

    def _read(self) -> Track:
        index: list[int] = []
        time_s: list[float] = []
        points: list[np.ndarray] = []
        readable: list[bool] = []
        sizes: list[tuple[int, int]] = []
        source = read_source(self.item, image_fps=self.settings.image_fps, max_frames=None)
        frames = itertools.islice(source, self.settings.max_frames)
        for chunk in chunks(counted(frames, "faces"), _CHUNK):
            points.append(self._landmarks(chunk))
            for frame in chunk:
                index.append(frame.index)
                time_s.append(frame.time_s)
                readable.append(frame.image is not None)
                if frame.image is not None and frame.placement is None:
                    sizes.append(frame.image.shape[:2])
        require_frames(len(index))
        if not (self.item.kind == "records" or self._has_codes()):
            backend = _backend(self.settings.landmarks)
            backend.check_count(lambda: 1 + max([index[-1], *(frame.index for frame in source)]), self.item.clip)
        if len(set(sizes)) > 1:
            raise BrokenMediaError(f"frames of {len(set(sizes))} sizes, expected one: {sorted(set(sizes))[:3]}")
        return Track(
            np.array(index),
            np.array(time_s),
            np.concatenate(points).astype(np.float32),
            np.array(readable),
            sizes[0] if sizes else (0, 0),
        )

    def _landmarks(self, chunk: Sequence[SourceFrame]) -> Float[np.ndarray, "t 68 2"]:
        if self.item.kind == "records":
            return np.stack([frame.landmarks for frame in chunk if frame.landmarks is not None])
        if self._has_codes():
            return np.full((len(chunk), 68, 2), np.nan, np.float32)
        backend = _backend(self.settings.landmarks)
        with one_thread():  # the back end may have loaded PyTorch just now
            return backend.landmarks68([frame.as_frame() for frame in chunk], self.item.clip)


@functools.lru_cache(maxsize=1)
def _backend(settings: LandmarkSettings) -> LandmarkBackend:
    return make_backend(settings)
