"""What is read off one video, whatever it is compared with: landmarks, features of faces, how restless it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from asccl_jax.errors import InputError
from asccl_jax.weights import FACE_NETWORK_FILES, FaceNetwork, load_face_network, missing_face_network
from asccl_jax.work import fingerprint
from data_prep.evaluate import network_features
from data_prep.evaluate.landmark_sources import ClipLandmarks
from data_prep.evaluate.lip_landmarks import inter_ocular, picture_jitter
from data_prep.evaluate.matching import ClipClock
from data_prep.evaluate.network_features import ClipCrop, clip_crop
from data_prep.evaluate.score_cache import Arrays, ScoreCache, digest
from data_prep.media.clips import Clip
from data_prep.media.decode import BrokenMediaError, Frame, read_frames

__all__ = [
    "FaceNetworks",
    "FeaturePart",
    "SyncNetwork",
    "VideoFeatures",
    "frame_chunks",
    "load_networks",
    "read_features",
]

Images = UInt8[np.ndarray, "n h w 3"]
Landmarks = Float32[np.ndarray, "t 68 2"]

_CHUNK_FRAMES, _CHUNK_BYTES = 32, 1 << 26


@dataclasses.dataclass(frozen=True)
class FeaturePart:
    """A network's view of a face, frame by frame.

    Attributes:
      name: The network's.
      key: Names its weights and settings.
      needs_landmarks: Whether it sees nothing without landmarks.
      rows: Images and their landmarks -> arrays with a row an image.
    """

    name: str
    key: str
    needs_landmarks: bool
    rows: Callable[[Images, Landmarks | None], Arrays]


@dataclasses.dataclass(frozen=True, eq=False)
class VideoFeatures:
    """What was read off a video.

    Attributes:
      key: Fingerprint of its content.
      times_s: Presentation time of each frame, the first one's zero.
      width: Of its frames, pixels.
      height: Likewise.
      landmarks: In pixels of its frames, NaN where there is no face; None where no source has any.
      landmarks_from: Which source they come from, or nothing.
      landmarks_remark: Why there are none, or nothing.
      jitter: `picture_jitter` at every inner frame.
      stored: Under which name each network's arrays are kept; one that could not look is absent.
      lacking: Why, by network.
      cache: Where they are kept.
      square: What networks saw of the frames; None for all.
    """

    key: str
    times_s: Float[np.ndarray, " t"]
    width: int
    height: int
    landmarks: Landmarks | None
    landmarks_from: str
    landmarks_remark: str
    jitter: Float[np.ndarray, " _"]
    stored: dict[str, str]
    lacking: dict[str, str]
    cache: ScoreCache
    square: ClipCrop | None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.times_s)

    @property
    def clock(self) -> ClipClock:
        """When they are shown."""
        return ClipClock(self.times_s)

    def network(self, name: str) -> Arrays | None:
        """Returns the arrays of a network, read anew each time so that memory holds few; None where it is absent."""
        return self.cache.find(name, self.stored[name]) if name in self.stored else None


def read_features(
    clip: Clip,
    key: str,
    landmarks: ClipLandmarks | None,
    parts: Sequence[FeaturePart],
    cache: ScoreCache,
    *,
    crop: bool,
) -> VideoFeatures:
    """Returns the features of a video: those that are stored, and the others, which are stored.

    Frames pass by in chunks; memory holds features and landmarks only.

    Args:
      clip: Whose video.
      key: Fingerprint of the video's content.
      landmarks: Where its landmarks come from, if from anywhere.
      parts: Networks that look at it.
      cache: Where results are kept.
      crop: Show networks the face, cut out by its landmarks, not whole frames.

    Raises:
      BrokenMediaError: The video cannot be read, or its frames differ in size.
    """
    facts = _facts(clip, key, landmarks, cache)
    points = facts["landmarks"] if len(facts["landmarks"]) else None
    square = clip_crop(points) if crop and points is not None else None
    wanted, lacking = [], {}
    for part in parts:
        reason = _blind(part, facts, points, square, crop=crop)
        if reason:
            lacking[part.name] = reason
        else:
            wanted.append(part)
    marks = landmarks.key if landmarks is not None else ""
    keys = {
        part.name: digest(key, part.key, str(crop), marks if crop or part.needs_landmarks else "") for part in wanted
    }
    missing = [part for part in wanted if not cache.has(part.name, keys[part.name])]
    if missing:
        for name, arrays in _computed(clip, missing, points, square).items():
            cache.store(name, keys[name], arrays)
    width, height = (int(side) for side in facts["size"])
    source = landmarks.name if landmarks is not None and points is not None else ""
    remark = str(facts["remark"]) or ("no source of landmarks has any" if landmarks is None else "")
    return VideoFeatures(
        key=key,
        times_s=facts["times_s"],
        width=width,
        height=height,
        landmarks=points,
        landmarks_from=source,
        landmarks_remark=remark,
        jitter=facts["jitter"],
        stored=keys,
        lacking=lacking,
        cache=cache,
        square=square,
    )


def frame_chunks(path: Path) -> Iterator[tuple[list[Frame], Images]]:
    """Yields the frames of a video, some at a time.

    Raises:
      BrokenMediaError: The video cannot be read, a picture of it is damaged, or pictures differ in size.
    """
    chunk: list[Frame] = []
    shape: tuple[int, ...] | None = None
    for row, frame in enumerate(read_frames(path)):
        if frame.image is None:
            raise BrokenMediaError(f"picture {row} cannot be read")
        shape = shape or frame.image.shape
        if frame.image.shape != shape:
            raise BrokenMediaError(f"picture {row} has another size than the first: {_size(frame.image.shape)}")
        chunk.append(frame)
        if len(chunk) >= max(1, min(_CHUNK_FRAMES, _CHUNK_BYTES // frame.image.nbytes)):
            yield chunk, _stacked(chunk)
            chunk = []
    if chunk:
        yield chunk, _stacked(chunk)


def _facts(clip: Clip, key: str, landmarks: ClipLandmarks | None, cache: ScoreCache) -> Arrays:
    """Times, size, landmarks and restlessness."""
    name = digest(key, landmarks.key if landmarks is not None else "")
    stored = cache.find("frames", name)
    if stored is not None:
        return stored
    times, points, jitter = [], [], []
    before: list[np.ndarray] = []
    size, remark = (0, 0), ""
    for frames, images in frame_chunks(clip.video):
        times += [frame.time_s for frame in frames]
        size = (images.shape[2], images.shape[1])
        if landmarks is not None and not remark:
            try:
                points.append(landmarks.rows(frames))
            except BrokenMediaError as error:  # costs the landmarks, not the clip
                points, remark = [], str(error)
        seen = [*before, *images]
        jitter.append(picture_jitter(seen))
        before = seen[-2:]
    if not times:
        raise BrokenMediaError("no picture can be decoded")
    if landmarks is not None and not remark:
        try:
            landmarks.check_count(len(times))
        except BrokenMediaError as error:
            points, remark = [], str(error)
    facts = {
        "times_s": np.array(times, np.float64),
        "size": np.array(size, np.int64),
        "landmarks": np.concatenate(points) if points else np.zeros((0, 68, 2), np.float32),
        "jitter": np.concatenate(jitter),
        "remark": np.array(remark),
    }
    cache.store("frames", name, facts)
    return facts


def _computed(
    clip: Clip, parts: Sequence[FeaturePart], points: Landmarks | None, square: ClipCrop | None
) -> dict[str, Arrays]:
    found: dict[str, list[Arrays]] = {part.name: [] for part in parts}
    row = 0
    for _, images in frame_chunks(clip.video):
        marks = None if points is None else points[row : row + len(images)]
        row += len(images)
        if square is not None and marks is not None:
            images, marks = np.stack([square.image(image) for image in images]), square.points(marks)
        for part in parts:
            found[part.name].append(part.rows(images, marks))
    return {
        name: {field: np.concatenate([arrays[field] for arrays in chunks]) for field in chunks[0]}
        for name, chunks in found.items()
    }


def _blind(part: FeaturePart, facts: Arrays, points: Landmarks | None, square: ClipCrop | None, *, crop: bool) -> str:
    """Why a network cannot look at a video, or nothing."""
    if (part.needs_landmarks or crop) and points is None:
        return "no landmarks"
    if crop:
        return "" if square is not None else "no face in any frame"
    width, height = (int(side) for side in facts["size"])
    return "" if width == height else f"frames of {width} x {height} are no face crops: give --crop"


def _stacked(frames: Sequence[Frame]) -> Images:
    return np.stack([frame.image for frame in frames if frame.image is not None])


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


# The networks that judge faces, as parts of the passes over videos; of one without its file, the remedy.


@dataclasses.dataclass(frozen=True)
class SyncNetwork:
    """SyncNet: embeds windows of lips and of sound."""

    key: str
    lips: Callable[[np.ndarray], np.ndarray]
    sound: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class FaceNetworks:
    """What can judge faces here.

    Attributes:
      parts: Those that look at single frames.
      sync: The one that compares lips and sound, or None.
      hashes: SHA-256 of the published file behind each, by name.
      missing: Of the others: which file to get from where, by name.
    """

    parts: tuple[FeaturePart, ...]
    sync: SyncNetwork | None
    hashes: Mapping[str, str]
    missing: Mapping[str, str]


def load_networks(directories: Mapping[str, Path | None]) -> FaceNetworks:
    """Returns the networks of the given folders.

    Args:
      directories: Folder of each network by name; None where none was given.

    Raises:
      InputError: A given folder does not hold the network.
    """
    found: dict[str, FaceNetwork] = {}
    for name, directory in directories.items():
        if directory is None:
            continue
        if not directory.is_dir():
            raise InputError(f"--{name} {directory}: no such folder; {missing_face_network(name)}")
        found[name] = load_face_network(directory, name)
    missing = {name: missing_face_network(name) for name in FACE_NETWORK_FILES if name not in found}
    parts = tuple(_part(found[name]) for name in _PARTS if name in found)
    hashes = {name: network.file_hash for name, network in found.items()}
    return FaceNetworks(parts, _sync(found["syncnet"]) if "syncnet" in found else None, hashes, missing)


def _part(network: FaceNetwork) -> FeaturePart:
    needs_landmarks, rows = _PARTS[network.name]
    return FeaturePart(network.name, _key(network), needs_landmarks, lambda images, marks: rows(network, images, marks))


def _key(network: FaceNetwork) -> str:
    return digest(
        network.name, network.file_hash, fingerprint(network.variables), str(sorted(network.settings.items()))
    )


def _sync(network: FaceNetwork) -> SyncNetwork:
    return SyncNetwork(
        _key(network),
        lambda windows: network_features.syncnet_lip_features(network, windows),
        lambda windows: network_features.syncnet_audio_features(network, windows),
    )


def _resnet_face(network: FaceNetwork, images: np.ndarray, landmarks: np.ndarray | None) -> dict[str, np.ndarray]:
    del landmarks
    return {"features": network_features.resnet_face_features(network, images)}


def _efficient_face(network: FaceNetwork, images: np.ndarray, landmarks: np.ndarray | None) -> dict[str, np.ndarray]:
    del landmarks
    features, probabilities = network_features.efficient_face_outputs(network, images)
    return {"features": features, "probabilities": probabilities}


def _arcface(network: FaceNetwork, images: np.ndarray, landmarks: np.ndarray | None) -> dict[str, np.ndarray]:
    assert landmarks is not None
    known = np.isfinite(landmarks).all(axis=(1, 2)) & (inter_ocular(landmarks) > 1)
    features: np.ndarray | None = None
    if known.any():
        seen = network_features.arcface_features(network, images[known], landmarks[known])
        features = np.full((len(images), seen.shape[1]), np.nan, np.float32)
        features[known] = seen
    return {"features": np.full((len(images), 512), np.nan, np.float32) if features is None else features}


_PARTS = {"resnet-face": (False, _resnet_face), "efficient-face": (False, _efficient_face), "arcface": (True, _arcface)}
"""By name: whether it needs landmarks, and what it makes of images and landmarks."""
