"""What is read off one video, whatever it is compared with: landmarks, features of faces, how restless it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from asccl_jax.evals.temporal_jitter import picture_jitter
from data_prep.clips import Clip
from data_prep.decode import BrokenMediaError, Frame, read_frames
from data_prep.evaluate.clip_times import ClipClock
from data_prep.evaluate.face_crop import ClipCrop, clip_crop
from data_prep.evaluate.landmark_sources import ClipLandmarks
from data_prep.evaluate.score_cache import Arrays, ScoreCache, digest

__all__ = ["FeaturePart", "VideoFeatures", "frame_chunks", "read_features"]

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
