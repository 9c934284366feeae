"""Frames and sound out of files: videos by PyAV, folders of numbered images by Pillow.

Pictures come upright (display matrix applied), in order of presentation and with their own times, so that a variable
frame rate does no harm; `shown_media` knows which there are and when. A file that cannot be read says why in one line,
as `BrokenMediaError`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from data_prep.media.shown_media import (
    BrokenMediaError,
    find_picture_track,
    find_sound_tracks,
    first_shown_s,
    named_errors,
    open_media,
    picture_track,
    shown_pictures,
)

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

_OUT_OF_STEP_S = 0.01
"""How far sound may stray from its packets' times, which some containers round; half of what a packet holds, mostly."""

_LONGEST_OVERLAP_S, _LONGEST_GAP_S = 0.5, 600.0
"""Steps of a sound's clock, back or ahead, beyond which it is another clock."""

_LEAST_HEARD = 0.9  # Share of a sound track's packets that can be decoded below which it counts as damaged.


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
    with open_media(path) as container:
        tracks = find_sound_tracks(container)
        if not tracks:
            raise NoAudioError("no audio track")
        line = _SoundLine()
        packets = damaged = 0
        with named_errors("audio"):
            for packet in container.demux(tracks[0]):
                packets += 1
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    damaged += 1
                    continue
                for frame in frames:
                    line.add(frame)
            samples = line.samples()
        if damaged > (1 - _LEAST_HEARD) * packets:
            raise BrokenMediaError(f"truncated or damaged audio: {damaged} of {packets} packets cannot be decoded")
        if not len(samples):
            raise NoAudioError("empty audio track")
    return Sound(samples=samples, start_s=float(line.start_s - _first_picture_s(path, line.start_s)))


def _first_picture_s(path: Path, otherwise_s: float) -> float:
    """Time of a video's first picture on the file's clock; the one given for a sound file."""
    with open_media(path) as container:
        if find_picture_track(container) is None:
            return otherwise_s
        return float(first_shown_s(container, picture_track(container)))


class _SoundLine:
    """Sound laid out by the times of its packets: silence where none is, of what overlaps the first."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self._resampler: Any = None
        self._form: tuple[Any, ...] = ()
        self._laid_s = 0.0
        """Until when sound was given; what a resampler holds back is counted."""
        self.start_s = 0.0
        """Time of the first sample on the file's clock."""

    def add(self, frame: Any) -> None:
        """Lays a decoded frame where it belongs."""
        if not frame.samples:
            return
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        began_s = self._laid_s if frame.time is None else frame.time
        if not self._form:
            self.start_s = self._laid_s = began_s
        late_s = began_s - self._laid_s
        if not -_LONGEST_OVERLAP_S <= late_s <= _LONGEST_GAP_S:
            raise BrokenMediaError(
                f"the sound's clock jumps from {self._laid_s:.2f} s to {began_s:.2f} s; recordings joined byte by byte?"
            )
        left_out = 0
        if abs(late_s) > _OUT_OF_STEP_S:
            left_out = min(frame.samples, max(0, round(-late_s * frame.sample_rate)))
        if late_s > _OUT_OF_STEP_S or left_out or form != self._form:
            self._finish()
        if late_s > _OUT_OF_STEP_S:
            self._fill(began_s)
        if left_out < frame.samples:
            mono = _mono(frame, left_out)
            self._resampler = self._resampler or av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            self._form = form
            self._pieces += [piece.to_ndarray().ravel() for piece in self._resampler.resample(mono)]
            self._laid_s += (frame.samples - left_out) / frame.sample_rate

    def samples(self) -> Float[np.ndarray, " n"]:
        """Returns all that was laid out."""
        self._finish()
        if not self._pieces:
            return np.zeros(0, np.float32)
        return np.concatenate(self._pieces).astype(np.float32) / np.float32(32768)

    def _finish(self) -> None:
        if self._resampler is not None:
            self._pieces += [piece.to_ndarray().ravel() for piece in self._resampler.resample(None)]
        self._resampler = None

    def _fill(self, until_s: float) -> None:
        """Adds silence; counted from the start, so that rounding does not add up."""
        there = sum(map(len, self._pieces))
        self._pieces.append(np.zeros(max(0, round((until_s - self.start_s) * SAMPLE_RATE) - there), np.int16))
        self._laid_s = until_s


def _mono(frame: Any, left_out: int) -> Any:
    """The frame without its first samples, its channels mixed by FFmpeg, or by their mean if it does not know them."""
    known = frame.layout.nb_channels <= 2 or all(channel.name != "NONE" for channel in frame.layout.channels)
    if known and not left_out:
        frame.pts = None  # where it belongs is known; a resampler would only wonder about gaps
        return frame
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    samples = samples[:, left_out:]
    layout = frame.layout.name
    if not known:
        samples, layout = samples.mean(axis=0, keepdims=True).astype(samples.dtype), "mono"
    planar = frame.format.is_planar
    shaped = samples if planar else samples.T.reshape(1, -1)
    made = av.AudioFrame.from_ndarray(np.ascontiguousarray(shaped), format=frame.format.name, layout=layout)
    made.sample_rate = frame.sample_rate
    return made


def extension_remark(path: Path) -> str | None:
    """Returns a remark if a readable file's name claims another format than it has."""
    with open_media(path) as container:
        extensions = set(container.format.extensions)
        if extensions and path.suffix.lower().lstrip(".") not in extensions:
            return f"wrong extension {path.suffix!r}: the file is {container.format.name}"
    return None


def _read_video(path: Path) -> Iterator[Frame]:
    with open_media(path) as container:
        track = picture_track(container)
        first = None
        for shown in shown_pictures(container, track):
            first = shown.pts if first is None else first
            time_s = float((shown.pts - first) * track.time_base)
            image = None
            if not shown.damaged:
                image = shown.orientation.upright(shown.frame.to_ndarray(format="rgb24"))
            yield Frame(index=shown.index, source_index=shown.index, time_s=time_s, image=image)


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
