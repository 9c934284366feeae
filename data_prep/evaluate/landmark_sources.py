"""Where the landmarks of a clip come from: the first of the asked-for sources that has them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Shaped

from asccl_jax.errors import InputError
from data_prep.clips import Clip
from data_prep.decode import Frame
from data_prep.evaluate.clip_times import ClipClock, nearest_rows
from data_prep.evaluate.mouth_probe import MouthProbe
from data_prep.evaluate.score_cache import Fingerprints
from data_prep.landmarks import BACKENDS, LandmarkBackend, LandmarkSettings, Precomputed, make_backend

__all__ = ["PROBE", "SOURCES", "ClipLandmarks", "LandmarkFinder"]

PROBE = "probe"
SOURCES = (*BACKENDS, PROBE)


class ClipLandmarks(Protocol):
    """Landmarks of one clip, in order, a chunk a call."""

    name: str
    """Where they come from."""

    key: str
    """What they depend on beside the video, for the cache."""

    def rows(self, frames: Sequence[Frame]) -> Float32[np.ndarray, "t 68 2"]:
        """Returns the landmarks of the next frames; NaN where there is no face."""

    def check_count(self, frames: int) -> None:
        """Raises `BrokenMediaError` if they are not of so many frames, as all chunks together had."""


class LandmarkFinder:
    """Chooses and runs the sources of landmarks.

    Args:
      names: Sources in the order of preference, of `SOURCES`.
      settings: What the back ends need.
      fingerprints: Of landmark files.

    Raises:
      InputError: An unknown source, or a back end that cannot run here.
    """

    def __init__(self, names: Sequence[str], settings: LandmarkSettings, fingerprints: Fingerprints) -> None:
        for name in names:
            if name not in SOURCES:
                raise InputError(f"--landmarks {name}: expected of {', '.join(SOURCES)}")
        self._names = tuple(names)
        self._settings = settings
        self._fingerprints = fingerprints
        self._local = threading.local()
        self._made: list[LandmarkBackend] = []
        for name in names:  # fails now, not after an hour
            if name != PROBE:
                self._backend(name)

    @property
    def wants_probe(self) -> bool:
        """Whether the probe was asked for."""
        return PROBE in self._names

    def choose(
        self,
        clip: Clip,
        *,
        probe: MouthProbe | None = None,
        source: tuple[Float32[np.ndarray, "t 68 2"] | None, ClipClock] | None = None,
    ) -> ClipLandmarks | None:
        """Returns the landmarks of a clip, or None where no source has any.

        Args:
          clip: The clip.
          probe: Reads mouths; needs the source's landmarks.
          source: Landmarks of the clip that this one was made from, frame by frame, and when its frames are shown.
        """
        for name in self._names:
            if name == PROBE:
                if probe is not None and source is not None and source[0] is not None:
                    return _Probed(probe, source[0], source[1])
                continue
            backend = self._backend(name)
            if isinstance(backend, Precomputed):
                path = backend.find(clip)
                if path is not None:
                    return _Found(name, backend, clip, self._fingerprints.of(path))
                continue
            return _Found(name, backend, clip, "")
        return None

    def close(self) -> None:
        """Ends what the back ends hold."""
        for backend in self._made:
            backend.close()

    def _backend(self, name: str) -> LandmarkBackend:
        # A back end follows one clip at a time, so each thread has its own.
        own: dict[str, LandmarkBackend] = self._local.__dict__
        if name not in own:
            own[name] = make_backend(
                LandmarkSettings(name, self._settings.directory, self._settings.mediapipe_python, self._settings.device)
            )
            self._made.append(own[name])
        return own[name]


class _Found:
    def __init__(self, name: str, backend: LandmarkBackend, clip: Clip, key: str) -> None:
        self.name, self.key = name, f"{name} {key}"
        self._backend, self._clip = backend, clip

    def rows(self, frames: Sequence[Frame]) -> Float32[np.ndarray, "t 68 2"]:
        return self._backend.landmarks68(frames, self._clip)

    def check_count(self, frames: int) -> None:
        self._backend.check_count(lambda: frames, self._clip)


class _Probed:
    """The mouth as the probe reads it, in the source's face: it looks where the source's eyes are at that time."""

    def __init__(self, probe: MouthProbe, source: Float32[np.ndarray, "t 68 2"], clock: ClipClock) -> None:
        self.name, self.key = PROBE, f"{PROBE} {probe.key} {hash_of(source)} {hash_of(clock.times_s)}"
        self._probe, self._source, self._clock = probe, source, clock

    def rows(self, frames: Sequence[Frame]) -> Float32[np.ndarray, "t 68 2"]:
        rows = nearest_rows(self._clock, np.array([frame.time_s for frame in frames]))
        points = self._source[rows].astype(np.float32)
        points[rows < 0] = np.nan
        return self._probe.with_mouths([frame.image for frame in frames if frame.image is not None], points)

    def check_count(self, frames: int) -> None:
        """Nothing is stored: what is read off frames is of as many."""


def hash_of(values: Shaped[np.ndarray, "..."]) -> str:
    """Returns a name that other landmarks or times do not have."""
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:24]
