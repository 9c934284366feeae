"""Files of video: what is in one, its pictures with their own times, and a new one that says it is synthetic."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from asccl_jax.errors import InputError
from DECA_torch_bridge.video.marked_writer import CONTAINERS, MarkedVideoWriter, is_same_file
from DECA_torch_bridge.video.yuv_picture import YuvPicture

__all__ = [
    "CONTAINERS",
    "MarkedVideoWriter",
    "SourceVideo",
    "TimedPicture",
    "VideoFacts",
    "is_same_file",
    "open_video",
    "probe_video",
]

_OWN_CLOCK = ("mpegts", "mpeg")
"""Containers whose clock starts anywhere; those of others start at 0, give or take what belongs to the video."""

_UNEVEN_S = 0.002
"""How far the time from frame to frame may stray from the usual one; files that count milliseconds stray by one."""


@dataclasses.dataclass(frozen=True)
class VideoFacts:
    """What a video file holds, by its packets; one picture is decoded.

    Attributes:
      frames: Pictures in it; a damaged file may give fewer.
      width: Of the upright picture in pixels; likewise the height.
      height: See above.
      fps: Mean frames a second.
      variable_rate: Whether the time from frame to frame varies.
      duration_s: From the first picture to the end of the last.
      has_audio: Whether there is a sound track.
      audio_codecs: Codec of each sound track.
      codec: Of the pictures.
      rotation: Degrees, counter-clockwise, by which the stored picture is turned to be upright.
    """

    frames: int
    width: int
    height: int
    fps: float
    variable_rate: bool
    duration_s: float
    has_audio: bool
    audio_codecs: tuple[str, ...]
    codec: str
    rotation: int


@dataclasses.dataclass(frozen=True, eq=False)
class TimedPicture:
    """A picture of a video.

    Attributes:
      index: 0-based number, as `data_prep.decode` counts frames.
      picture: Upright.
      pts: Presentation time in ticks of the video's clock.
      duration: For how long it is shown, in ticks; 0 if not known.
      time_s: Presentation time, 0 at the first picture.
    """

    index: int
    picture: YuvPicture
    pts: int
    duration: int
    time_s: float


@dataclasses.dataclass(frozen=True, eq=False)
class SourceVideo:
    """An open video.

    Attributes:
      path: Where it lies.
      clock: Seconds a tick.
      rate: Mean frames a second, as the file has it.
      aspect: Width over height of an upright picture's pixels.
      origin_s: Time at which the clock of the file starts, to be subtracted from pictures and sound.
      title: What the file calls itself; empty where it does not.
    """

    path: Path
    clock: Fraction
    rate: Fraction
    aspect: Fraction
    origin_s: Fraction
    title: str
    container: Any

    def pictures(self) -> Iterator[TimedPicture]:
        """Yields the pictures in order of presentation, each as it is asked for.

        Raises:
          InputError: The file breaks off, or its pictures change their size.
        """
        last, first, size = None, None, None
        step = max(1, round(1 / (self.rate * self.clock)))
        with _reading(self.path):
            for index, frame in enumerate(self.container.decode(self.container.streams.video[0])):
                picture = YuvPicture.of_frame(frame)
                size = size or picture.size
                if picture.size != size:
                    raise InputError(f"{self.path}: frame {index} has another size than those before; cut it there")
                pts = frame.pts if frame.pts is not None else (0 if last is None else last + step)
                # Broken files give two pictures one time, or one before; an encoder takes rising ones only.
                pts = pts if last is None else max(pts, last + 1)
                first = pts if first is None else first
                last = pts
                yield TimedPicture(index, picture, pts, frame.duration or 0, float((pts - first) * self.clock))
        if last is None:
            raise InputError(f"{self.path}: not one picture can be decoded")


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[SourceVideo]:
    """Opens a video file to read its pictures.

    Raises:
      InputError: It cannot be read, or is no video.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        origin = Fraction(0)
        if container.start_time is not None and container.format.name in _OWN_CLOCK:
            origin = Fraction(container.start_time, av.time_base)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        yield SourceVideo(
            path=path,
            clock=stream.time_base,
            rate=Fraction(stream.average_rate or stream.guessed_rate or 30),
            aspect=1 / aspect if aspect != 1 and _lies_on_its_side(path) else aspect,
            origin_s=origin,
            title=container.metadata.get("title", ""),
            container=container,
        )


def probe_video(path: Path) -> VideoFacts:
    """Returns what a video file holds; reads all of it, but decodes one picture only.

    Raises:
      InputError: It cannot be read, or is no video.
    """
    with _opened(path) as container, _reading(path):
        stream = container.streams.video[0]
        first, times, last_duration = None, [], 0
        for packet in container.demux(stream):
            if first is None:
                first = next(iter(packet.decode()), None)
            if not packet.size or packet.is_discard:
                continue
            times.append(packet.pts if packet.pts is not None else packet.dts)
            last_duration = packet.duration or last_duration
        if first is None:
            raise InputError(f"{path}: not one picture can be decoded")
        steps, shown = _steps_s(times, float(stream.time_base))
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        fps = len(steps) / steps.sum() if len(steps) else rate
        turned = round(first.rotation / 90) % 2
        height, width = (first.width, first.height) if turned else (first.height, first.width)
        last_s = last_duration * float(stream.time_base) or 1 / fps
        codecs = tuple(track.codec_context.name if track.codec_context else "?" for track in container.streams.audio)
        return VideoFacts(
            frames=shown,
            width=width,
            height=height,
            fps=round(float(fps), 4),
            variable_rate=bool(len(steps) and np.abs(steps - np.median(steps)).max() > _UNEVEN_S),
            duration_s=float(steps.sum() + last_s),
            has_audio=bool(codecs),
            audio_codecs=codecs,
            codec=stream.codec_context.name,
            rotation=round(first.rotation),
        )


def _lies_on_its_side(path: Path) -> bool:
    """Whether stored pictures are to be turned by a quarter. Seeking back to the first is not safe in every format."""
    with _opened(path) as container, _reading(path):
        first = next(container.decode(container.streams.video[0]), None)
        return first is not None and round(first.rotation / 90) % 2 == 1


def _steps_s(times: list[int | None], tick_s: float) -> tuple[np.ndarray, int]:
    """Time from each frame to the next, as far as it is known, and how many frames there are."""
    known = np.array(sorted(time for time in times if time is not None), np.float64)
    return np.diff(known) * tick_s, len(times)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a video")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: an empty file; expected a video")
    with _reading(path):
        container = av.open(str(path))
    with container:
        pictures = [stream for stream in container.streams.video if not stream.disposition & _COVER]
        if not pictures or pictures[0].index != container.streams.video[0].index:
            raise InputError(f"{path}: no video track in it")
        if "pipe" in container.format.name or container.format.name == "image2":
            raise InputError(f"{path}: a still image, expected a video")
        yield container


_COVER = av.stream.Disposition.attached_pic


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what FFmpeg says of a file that is read into one line."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: no video that can be read, or damaged: {error.strerror or error}") from error
