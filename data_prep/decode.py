"""Frames and sound out of files: videos by PyAV, folders of numbered images by Pillow.

Pictures come upright (rotation metadata applied), in order of presentation and with their own times, so that a
variable frame rate does no harm. A file that cannot be read says why in one line, as `BrokenMediaError`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

__all__ = [
    "SAMPLE_RATE",
    "BrokenMediaError",
    "Frame",
    "NoAudioError",
    "Sound",
    "extension_remark",
    "read_frames",
    "read_sound",
    "resample_frames",
]

SAMPLE_RATE = 16000
"""Samples a second of all sound in this package."""

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".webp"])

_LEAST_DECODED = 0.9  # Share of the announced frames below which a file counts as truncated.


class BrokenMediaError(ValueError):
    """A file that cannot be used; the message is the reason, as the report words it."""


class NoAudioError(BrokenMediaError):
    """A file without a sound track."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One picture of a clip.

    Attributes:
      index: 0-based number by which records and pairs know the frame.
      source_index: 0-based number in the source; differs from `index` only after `resample_frames`.
      time_s: Presentation time, 0 at the first picture.
      image: RGB, 0..255, or None where this one picture cannot be read.
    """

    index: int
    source_index: int
    time_s: float
    image: UInt8[np.ndarray, "h w 3"] | None


@dataclasses.dataclass(frozen=True)
class Sound:
    """A sound track.

    Attributes:
      samples: Mono, `SAMPLE_RATE` a second, -1..1.
      start_s: Time of the first sample on the axis of the video's frame times.
    """

    samples: Float[np.ndarray, " n"]
    start_s: float


def read_frames(path: Path, *, image_fps: float = 30.0) -> Iterator[Frame]:
    """Yields the pictures of a video file or of a folder of numbered images.

    Args:
      path: Video file or folder.
      image_fps: Frame rate of a folder of images.

    Raises:
      BrokenMediaError: Nothing can be read, or the file breaks off.
    """
    return _read_image_folder(path, image_fps) if path.is_dir() else _read_video(path)


def resample_frames(frames: Iterable[Frame], fps: float) -> Iterator[Frame]:
    """Yields frames at a constant rate, each the nearest in time, renumbered from 0."""
    target, previous = 0, None
    for frame in frames:
        while previous is not None and target / fps <= (previous.time_s + frame.time_s) / 2:
            yield dataclasses.replace(previous, index=target)
            target += 1
        previous = frame
    while previous is not None and target / fps <= previous.time_s:
        yield dataclasses.replace(previous, index=target)
        target += 1


def read_sound(path: Path) -> Sound:
    """Returns the sound of a video or audio file as mono at `SAMPLE_RATE`.

    The sound of a video keeps its distance from the first picture; a sound file of its own starts at time 0.

    Args:
      path: File to read.

    Raises:
      NoAudioError: There is no sound track, or not one sample in it.
      BrokenMediaError: The file cannot be read.
    """
    with _open(path) as container:
        if not container.streams.audio:
            raise NoAudioError("no audio track")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        pieces: list[np.ndarray] = []
        start_s = None
        with _named_errors("audio"):
            for frame in container.decode(stream):
                start_s = frame.time if start_s is None else start_s
                pieces += [piece.to_ndarray().ravel() for piece in resampler.resample(frame)]
            pieces += [piece.to_ndarray().ravel() for piece in resampler.resample(None)]
        if not pieces:
            raise NoAudioError("empty audio track")
        samples = np.concatenate(pieces).astype(np.float32) / np.float32(32768)
        pictures = container.streams.video
        delay_s = (start_s or 0.0) - _start_s(pictures[0]) if pictures else 0.0
        return Sound(samples=samples, start_s=delay_s)


def extension_remark(path: Path) -> str | None:
    """Returns a remark if a readable file's name claims another format than it has."""
    with _open(path) as container:
        extensions = set(container.format.extensions)
        if extensions and path.suffix.lower().lstrip(".") not in extensions:
            return f"wrong extension {path.suffix!r}: the file is {container.format.name}"
    return None


def _read_video(path: Path) -> Iterator[Frame]:
    with _open(path) as container:
        if not container.streams.video:
            raise BrokenMediaError("no video track")
        if "pipe" in container.format.name or container.format.name == "image2":
            raise BrokenMediaError(f"a still image ({container.format.name}), not a video: wrong extension?")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 2
        rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        index, first_s = 0, None
        with _named_errors("video", lambda: f" after {index} of {stream.frames or 'unknown'} frames"):
            for frame in container.decode(stream):
                time_s = frame.time if frame.time is not None else float(index / rate)
                first_s = time_s if first_s is None else first_s
                image = None if frame.is_corrupt else _upright(frame)
                yield Frame(index=index, source_index=index, time_s=time_s - first_s, image=image)
                index += 1
        if index == 0:
            raise BrokenMediaError("no picture can be decoded")
        if index < _LEAST_DECODED * stream.frames:
            raise BrokenMediaError(f"truncated: {index} of {stream.frames} frames can be read")


def _upright(frame: Any) -> UInt8[np.ndarray, "h w 3"]:
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counter-clockwise degrees, from the display matrix
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _read_image_folder(folder: Path, fps: float) -> Iterator[Frame]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    paths = [path for path in paths if path.stem.isdecimal()]
    if not paths:
        raise BrokenMediaError("no numbered image (as 000001.png) in the folder")
    numbers = [int(path.stem) for path in paths]
    # ffmpeg numbers from 1, the released crops from 0: the smallest number tells, as pairs count from 0.
    base = 0 if folder.parent.parent.name == "align_img" or min(numbers) == 0 else 1
    for path, number in sorted(zip(paths, numbers, strict=True), key=lambda entry: entry[1]):
        index = number - base
        try:
            with Image.open(path) as opened:
                image = np.asarray(opened.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            image = None
        yield Frame(index=index, source_index=index, time_s=index / fps, image=image)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    # PyAV's log level stays unset: any level sends FFmpeg's messages through Python, and a decoder's thread that waits
    # for the interpreter while `close` waits for the thread hangs a program of several threads.
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BrokenMediaError(f"cannot be opened: {error.strerror}") from error
    if size == 0:
        raise BrokenMediaError("an empty file")
    with _named_errors("file"):
        container = av.open(str(path))
    with container:
        yield container


@contextlib.contextmanager
def _named_errors(what: str, where: Any = lambda: "") -> Iterator[None]:
    try:
        yield
    except av.error.InvalidDataError as error:
        meaning = "not a video, or truncated (wrong extension?)" if what == "file" else f"truncated or damaged {what}"
        raise BrokenMediaError(f"{meaning}{where()}: {error.strerror}") from error
    except (av.error.FFmpegError, OSError) as error:
        raise BrokenMediaError(f"{what} cannot be decoded{where()}: {error.strerror or error}") from error


def _start_s(stream: Any) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
