"""Where the landmarks of a clip come from: the first of the asked-for sources that has them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8
from PIL import Image

from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.errors import InputError
from asccl_jax.evals.landmark_probe import MOUTH, LandmarkProbe, load_probe, save_probe, train_probe
from asccl_jax.image.polygon import face_outline
from data_prep.evaluate.lip_landmarks import inter_ocular
from data_prep.evaluate.matching import ClipClock, nearest_rows
from data_prep.evaluate.score_cache import Fingerprints
from data_prep.media.clips import Clip
from data_prep.media.decode import Frame, read_frames
from data_prep.media.landmarks import BACKENDS, LandmarkBackend, LandmarkSettings, Precomputed, make_backend

__all__ = ["PROBE", "SOURCES", "ClipLandmarks", "KnownClip", "LandmarkFinder", "MouthProbe", "fitted_probe"]

# Mouths read off faces that no detector knows: a probe trained on the real clips whose landmarks are given.
#
# A manipulated frame shows the head where its source does, so the source's eyes tell where to look; the probe says
# where the lips are. It is never better than its error on frames it has not seen, which is reported with every
# distance.

SIDE = 96
"""Side of the pictures the probe reads, in pixels."""

_EYES_ROW, _EYE_DISTANCES = 0.40, 3.4
"""Where the eyes lie in such a picture, and its side over their distance: the mouth then lies where the probe looks."""

_MOST_FRAMES = 1500
_STEPS = 1500
_LEAST_FRAMES = 20

Picture = UInt8[np.ndarray, "s s 3"]


@dataclasses.dataclass(frozen=True)
class KnownClip:
    """A real clip with landmarks: its video, its landmarks frame by frame, and a name for both."""

    video: Path
    landmarks: Float32[np.ndarray, "t 68 2"]
    key: str


@dataclasses.dataclass(frozen=True, eq=False)
class MouthProbe:
    """A trained probe.

    Attributes:
      network: It.
      error: Mean error of its points on frames it has not seen, over the distance between the eyes.
      frames: Frames the error is of.
      key: Names what it was trained on.
    """

    network: LandmarkProbe
    error: float
    frames: int
    key: str

    def with_mouths(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]], landmarks: Float32[np.ndarray, "t 68 2"]
    ) -> Float32[np.ndarray, "t 68 2"]:
        """Returns landmarks whose mouths are those of the pictures; rows without a face stay as they are."""
        found = landmarks.copy()
        rows = [row for row in range(len(images)) if np.isfinite(landmarks[row]).all()]
        if rows:
            cut = [_upright(images[row], landmarks[row]) for row in rows]
            mouths = self.network.locate(np.stack([picture for picture, _ in cut]))
            for row, mouth, (_, matrix) in zip(rows, mouths, cut, strict=True):
                found[row, MOUTH] = _moved(mouth, matrix)
        return found


def fitted_probe(clips: Sequence[KnownClip], path: Path, *, steps: int = _STEPS) -> MouthProbe:
    """Returns the probe of some clips: the one kept in a file, or else a newly trained one.

    A fifth of the clips is kept from training to tell the error; of fewer than five clips the last fifth of each.

    Args:
      clips: Real clips with landmarks.
      path: Where it is kept; the name must tell what it was trained on.
      steps: Updates.

    Raises:
      InputError: Too few frames with landmarks.
    """
    learned, unseen = _examples(clips)
    if len(learned) < _LEAST_FRAMES or not unseen:
        raise InputError(
            f"--landmarks probe: {len(learned)} real frames with landmarks to learn from, expected {_LEAST_FRAMES} or"
            " more: put an npz (key landmarks68) beside real or source clips, or give --landmarks-dir"
        )
    images, masks, mouths, _ = (np.stack(part) for part in zip(*learned, strict=True))
    if path.is_file():
        network = load_probe(path)
    else:
        network = train_probe(images, masks, mouths, steps=steps)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_probe(path, network)
    images, masks, mouths, eyes = (np.stack(part) for part in zip(*unseen, strict=True))
    found = network.locate(np.where(masks > 0, images, np.uint8(0)))
    error = float(np.mean(np.linalg.norm(found - mouths, axis=-1).mean(axis=1) / eyes))
    return MouthProbe(network, error, len(unseen), path.stem)


_Example = tuple[Picture, UInt8[np.ndarray, "s s 1"], Float[np.ndarray, "20 2"], np.ndarray]
"""A picture, its face's mask, its mouth, and the distance between its eyes."""


def _examples(clips: Sequence[KnownClip]) -> tuple[list[_Example], list[_Example]]:
    each = max(1, _MOST_FRAMES // max(1, len(clips)))
    learned: list[_Example] = []
    unseen: list[_Example] = []
    for number, clip in enumerate(clips):
        found = list(_clip_examples(clip, each))
        if len(clips) >= 5:
            (unseen if number % 5 == 4 else learned).extend(found)
        else:
            cut = len(found) - max(1, len(found) // 5)
            learned += found[:cut]
            unseen += found[cut:]
    return learned, unseen


def _clip_examples(clip: KnownClip, most: int) -> Iterator[_Example]:
    known = np.flatnonzero(np.isfinite(clip.landmarks).all(axis=(1, 2)))
    wanted = set(evenly_spaced(known.tolist(), most))
    for row, frame in enumerate(read_frames(clip.video)):
        if row in wanted and frame.image is not None:
            points = clip.landmarks[row]
            picture, matrix = _upright(frame.image, points)
            inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
            placed = _moved(points, inverse)
            mask = np.where(face_outline(placed, (SIDE, SIDE)), 255, 0).astype(np.uint8)[..., None]
            yield picture, mask, placed[MOUTH].astype(np.float64), inter_ocular(placed[None])[0]


def _upright(
    image: UInt8[np.ndarray, "h w 3"], landmarks: Float32[np.ndarray, "68 2"]
) -> tuple[Picture, Float[np.ndarray, "2 3"]]:
    """The face with level eyes, and the matrix from its pixels to the frame's. Only the eyes decide, not the mouth."""
    right, left = landmarks[36:42].mean(axis=0, dtype=np.float64), landmarks[42:48].mean(axis=0, dtype=np.float64)
    across = left - right
    scale = max(_EYE_DISTANCES * float(np.hypot(*across)) / SIDE, 1e-3)
    x, y = across / max(float(np.hypot(*across)), 1e-6) * scale
    linear = np.array([[x, -y], [y, x]])
    offset = (right + left) / 2 - linear @ np.array([(SIDE - 1) / 2, _EYES_ROW * SIDE])
    matrix = np.concatenate([linear, offset[:, None]], axis=1)
    picture, factor = Image.fromarray(image), max(1, int(scale))
    if factor > 1:
        picture = picture.reduce(factor)
    # Pillow counts from the corner of the first pixel, landmarks from its middle.
    corner = np.concatenate([linear, (offset + 0.5 - linear @ np.array([0.5, 0.5]))[:, None]], axis=1) / factor
    data = corner.ravel().tolist()
    turned = picture.transform((SIDE, SIDE), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    return np.array(turned), matrix


def _moved(points: Float[np.ndarray, "n 2"], matrix: Float[np.ndarray, "2 3"]) -> Float32[np.ndarray, "n 2"]:
    return (points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


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
