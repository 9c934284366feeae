"""Files of video: what is in one, its pictures with their own times, and a new one that says it is synthetic."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from asccl_jax.errors import InputError
from data_prep.media.encode import CONTAINERS, MarkedVideoWriter, YuvPicture, is_same_file
from data_prep.media.shown_media import (
    BrokenMediaError,
    Orientation,
    ShownPicture,
    find_sound_tracks,
    first_heard_s,
    frame_rate,
    open_media,
    picture_track,
    shown_packet_times,
    shown_pictures,
)

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

_LOG = logging.getLogger(__name__)

_AT_ZERO_S = Fraction(2, 1000)
"""How far from 0 a file's first picture or sound may be for its clock to start there: what rounding leaves."""

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
      index: 0-based number, as `data_prep.media.decode` counts frames.
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
      origin_s: Time at which the first picture or sound is shown, to be subtracted from pictures and sound.
      title: What the file calls itself; empty where it does not.
    """

    path: Path
    clock: Fraction
    rate: Fraction
    aspect: Fraction
    origin_s: Fraction
    title: str
    shown: Iterator[ShownPicture]

    def pictures(self) -> Iterator[TimedPicture]:
        """Yields the pictures in order of presentation, each as it is asked for.

        Raises:
          InputError: The file breaks off, or its pictures change their size.
        """
        first, size = None, None
        with _reading(self.path):
            for shown in self.shown:
                picture = YuvPicture.of_frame(shown.frame, shown.orientation)
                size = size or picture.size
                if picture.size != size:
                    raise InputError(
                        f"{self.path}: frame {shown.index} has another size than those before; cut it there"
                    )
                if first is None:
                    first = shown.pts
                    if shown.deinterlaced:
                        _LOG.warning("note: %s: interlaced; read deinterlaced, as many frames as before", self.path)
                yield TimedPicture(
                    shown.index, picture, shown.pts, shown.duration, float((shown.pts - first) * self.clock)
                )


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[SourceVideo]:
    """Opens a video file to read its pictures.

    Raises:
      InputError: It cannot be read, or is no video.
    """
    heard_s = _first_heard_s(path)
    with _opened(path) as (container, track):
        pictures = shown_pictures(container, track)
        with _reading(path):
            first = next(pictures)
        # What begins before 0 beside pictures that do not is a decoder's lead-in, whatever the container calls it.
        starts = [first.pts * track.time_base, *([] if heard_s is None else [max(heard_s, Fraction(0))])]
        origin = min(starts)
        aspect = track.sample_aspect_ratio or Fraction(1)
        yield SourceVideo(
            path=path,
            clock=track.time_base,
            rate=frame_rate(track),
            aspect=1 / aspect if first.orientation.transposed else aspect,
            origin_s=origin if abs(origin) > _AT_ZERO_S else Fraction(0),
            title=container.metadata.get("title", ""),
            shown=itertools.chain([first], pictures),
        )


def probe_video(path: Path) -> VideoFacts:
    """Returns what a video file holds; reads all of it, but decodes few pictures only.

    Raises:
      InputError: It cannot be read, or is no video.
    """
    with _opened(path) as (container, track), _reading(path):
        first = next(shown_pictures(container, track)).frame
        turned = Orientation.of(first).transposed
        height, width = (first.width, first.height) if turned else (first.height, first.width)
        codecs = tuple(sound.codec_context.name if sound.codec_context else "?" for sound in container.streams.audio)
        codec, rotation, rate, tick_s = track.codec_context.name, first.rotation, frame_rate(track), track.time_base
    with _opened(path) as (container, track), _reading(path):
        times, last = shown_packet_times(container, track)
    steps = np.diff(times) * float(tick_s)
    fps = float(len(steps) / steps.sum()) if len(steps) else float(rate)
    return VideoFacts(
        frames=len(times),
        width=width,
        height=height,
        fps=round(fps, 4),
        variable_rate=bool(len(steps) and np.abs(steps - np.median(steps)).max() > _UNEVEN_S),
        duration_s=float(steps.sum() + last * tick_s),
        has_audio=bool(codecs),
        audio_codecs=codecs,
        codec=codec,
        rotation=round(rotation),
    )


def _first_heard_s(path: Path) -> Fraction | None:
    """Time at which a video's sound begins on the file's clock, or None."""
    with _opened(path) as (container, _), _reading(path):
        return first_heard_s(container, find_sound_tracks(container))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a file and finds its track of pictures."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a video")
    with _reading(path), contextlib.ExitStack() as stack:
        container = stack.enter_context(open_media(path))
        track = picture_track(container)
        left = stack.pop_all()
    with left:
        yield container, track


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what is wrong with a file that is read into one line."""
    try:
        yield
    except BrokenMediaError as error:
        raise InputError(f"{path}: {error}") from error
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: no video that can be read, or damaged: {error.strerror or error}") from error
