"""A video file that says it is synthetic: H.264, each picture at a time of its own, sound copied packet by packet."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av

from asccl_jax import __version__
from asccl_jax.data.atomic import atomic_file
from asccl_jax.errors import InputError, WriteError, writing
from DECA_torch_bridge.video.yuv_picture import YuvPicture

__all__ = ["CONTAINERS", "MARK", "MarkedVideoWriter", "is_same_file"]

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Ending of an output's name -> FFmpeg's name of the format."""

MARK = (
    "Synthetic media: the face in this video was changed by a program"
    f" (asccl-jax {__version__}); it does not show what the person did."
    " https://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
"""What the file's comment and description say; the address is IPTC's term for it, which other programs look for."""

_FINEST = 1 << 28
"""Ticks a second of the finest clock that an mp4 file's list of edits is given."""


class MarkedVideoWriter:
    """Writes a video that appears whole or not at all; a context manager.

    Args:
      path: `.mp4`, `.mov` or `.mkv`; replaced if it exists.
      clock: Seconds a tick of the times that `write` is told. Matroska rounds them to milliseconds.
      rate: Mean frames a second, for players that ask.
      sound_of: File whose sound tracks are copied bit for bit, at their own times; None for none.
      origin_s: Subtracted from all times.
      aspect: Width over height of a pixel.
      title: What the video is called.
      crf: Quality of x264 from 0, lossless, to 51; each 6 more halve the size.
      preset: Speed of x264.

    Raises:
      InputError: Another ending, or a sound track that this format cannot hold.
      WriteError: The system does not let it write.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Fraction,
        rate: Fraction,
        sound_of: Path | None = None,
        origin_s: Fraction = Fraction(0),
        aspect: Fraction = Fraction(1),
        title: str = "",
        crf: int = 16,
        preset: str = "medium",
    ) -> None:
        if path.suffix.lower() not in CONTAINERS:
            raise InputError(f"{path}: expected a name that ends in {', '.join(CONTAINERS)}")
        if not 0 <= crf <= 51:
            raise InputError(f"crf {crf}: expected 0 (lossless) to 51")
        self._path, self._clock, self._rate, self._origin_s = path, clock, rate, origin_s
        self._sound_of, self._aspect, self._title = sound_of, aspect, title or path.stem
        self._options = {"crf": str(crf), "preset": preset}
        self._stack = contextlib.ExitStack()
        self._sound: _Sound | None = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        """Opens the file under another name."""
        with contextlib.ExitStack() as stack:
            with self._saying():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(atomic_file(self._path))
            if self._sound_of is not None:
                self._sound = stack.enter_context(_opened_sound(self._sound_of, self._origin_s))
            with self._saying():
                self._container = stack.enter_context(av.open(file.name, "w", **self._format()))
            self._container.metadata.update(
                title=f"{self._title} (synthetic)", comment=MARK, description=MARK, keywords="synthetic media"
            )
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
            self._stream.codec_context.time_base = self._clock
            if self._sound is not None:
                self._sound.copy_to(self._container, self._path)
            self._stack = stack.pop_all()
        return self

    def write(self, picture: YuvPicture, *, pts: int, duration: int = 0) -> None:
        """Appends a picture.

        Args:
          picture: Of the size of those before.
          pts: Presentation time in ticks, later than that before.
          duration: For how long it is shown, in ticks; 0 leaves it to the next picture.
        """
        codec = self._stream.codec_context
        if not codec.is_open:
            self._stream.height, self._stream.width = picture.size
            self._stream.pix_fmt = "yuv420p"
            codec.sample_aspect_ratio = self._aspect
            colours = picture.colours
            codec.colorspace, codec.color_range = colours.matrix, colours.value_range
            codec.color_primaries, codec.color_trc = colours.primaries, colours.transfer
        frame = picture.frame()
        frame.pts, frame.time_base = pts - round(self._origin_s / self._clock), self._clock
        frame.duration = duration
        with self._saying():
            self._container.mux(self._stream.encode(frame))
        self._copy_sound(frame.pts * self._clock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the file its name, or discards it after an error."""
        if kind is not None:
            # Closing writes what an encoder still holds; that may fail for the same reason, which is told already.
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            with self._saying():
                self._container.mux(self._stream.encode())
            self._copy_sound(None)
            with self._saying():
                self._container.close()

    def _format(self) -> dict[str, Any]:
        kind = CONTAINERS[self._path.suffix.lower()]
        if kind == "matroska":
            return {"format": kind}
        # Where pictures or sound start late, mp4 counts the wait in this clock; milliseconds would shift them.
        clocks = [self._clock.denominator, *(self._sound.clocks if self._sound is not None else ())]
        scale = math.lcm(*clocks)
        scale = scale if scale < _FINEST else max(clocks)
        return {"format": kind, "options": {"movflags": "+faststart", "movie_timescale": str(scale)}}

    def _copy_sound(self, until_s: Fraction | None) -> None:
        if self._sound is None:
            return
        for packet in self._sound.packets(until_s):
            with self._saying():
                self._container.mux(packet)

    @contextlib.contextmanager
    def _saying(self) -> Iterator[None]:
        """Turns errors of the system and of FFmpeg, which wraps them, into `WriteError`."""
        try:
            with writing(self._path):
                yield
        except av.error.FFmpegError as error:
            raise WriteError(f"cannot write {self._path}: {error.strerror or error}") from error


class _Sound:
    """The sound tracks of a file, packet by packet."""

    def __init__(self, path: Path, container: Any, origin_s: Fraction) -> None:
        self._path, self._container, self._origin_s = path, container, origin_s
        self._packets = container.demux(container.streams.audio) if container.streams.audio else iter(())
        self._next: Any = None
        self._targets: dict[int, Any] = {}

    @property
    def clocks(self) -> list[int]:
        """Ticks a second of each track."""
        return [track.time_base.denominator for track in self._container.streams.audio]

    def copy_to(self, output: Any, path: Path) -> None:
        for track in self._container.streams.audio:
            try:
                self._targets[track.index] = output.add_stream_from_template(track)
            except (ValueError, av.error.FFmpegError) as error:
                name = track.codec_context.name if track.codec_context else "unknown"
                other = "" if path.suffix.lower() == ".mkv" else "name an output that ends in .mkv, or "
                raise InputError(
                    f"{self._path}: its sound is {name}, which {path.suffix} cannot hold as it is; {other}convert it to"
                    " AAC first"
                ) from error

    def packets(self, until_s: Fraction | None) -> Iterator[Any]:
        """Yields the packets that begin before a time, or all that are left."""
        while True:
            if self._next is None:
                self._next = self._read()
            packet = self._next
            if packet is None or (until_s is not None and packet.dts * packet.time_base > until_s):
                return
            self._next = None
            packet.stream = self._targets[packet.stream_index]
            yield packet

    def _read(self) -> Any:
        """The next packet, its times counted from the origin; None after the last."""
        try:
            for packet in self._packets:
                if packet.size and packet.dts is not None:
                    shift = round(self._origin_s / packet.time_base)
                    packet.dts, packet.pts = packet.dts - shift, packet.pts - shift
                    return packet
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self._path}: its sound cannot be read: {error.strerror or error}") from error
        return None


@contextlib.contextmanager
def _opened_sound(path: Path, origin_s: Fraction) -> Iterator[_Sound]:
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    with container:
        yield _Sound(path, container, origin_s)


def is_same_file(first: Path, second: Path) -> bool:
    """Returns whether two names are those of one file that exists."""
    return first.exists() and second.exists() and first.samefile(second)
