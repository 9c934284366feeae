"""A video file that says it is synthetic: H.264, each picture at a time of its own, sound copied packet by packet."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import io
import logging
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Int, UInt8

from asccl_jax import __version__
from asccl_jax.errors import InputError, WriteError, writing
from asccl_jax.paths import readable
from asccl_jax.work import atomic_file
from data_prep.media.shown_media import BrokenMediaError, Orientation, find_picture_track, find_sound_tracks, open_media

__all__ = [
    "CONTAINERS",
    "MARK",
    "Box",
    "MarkedVideoWriter",
    "YuvPicture",
    "draw_label",
    "is_same_file",
    "refusal_of_sound",
]

# Pictures as videos store them, luma and halved chroma, changed in boxes and nowhere else.
#
# A frame that went to RGB and back would not be what it was. Here a box is read as RGB, and of what becomes of it only
# the difference is put back: pixels that nothing changes keep their bits.

_AS_STORED = Orientation()

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two exclusive; may reach beyond the picture."""

_MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M, 9: Colorspace.BT2020}
"""Number of a colour matrix in files (ITU-T H.273) -> its name in FFmpeg's converter; 601 where there is none."""

_PLANAR = {"yuv420p": None, "yuvj420p": int(ColorRange.JPEG)}
"""Pixel formats whose planes are taken as they are, and the range of values that the name itself tells."""


@dataclasses.dataclass(frozen=True)
class Colours:
    """What a file says of its colours, in the numbers of ITU-T H.273; 2 is "not said".

    Attributes:
      matrix: How luma and chroma come from RGB.
      value_range: 1 for 16..235, 2 for 0..255, 0 not said.
      primaries: Which red, green and blue.
      transfer: Which curve of brightness.
    """

    matrix: int = 2
    value_range: int = 0
    primaries: int = 2
    transfer: int = 2


@dataclasses.dataclass(frozen=True, eq=False)
class YuvPicture:
    """A picture with chroma at half its size, upright, its sides even.

    Attributes:
      planes: Luma, blue and red difference; may be written to.
      colours: What they mean.
    """

    planes: tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "ch cw"], UInt8[np.ndarray, "ch cw"]]
    colours: Colours

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, even."""
        return self.planes[0].shape[0], self.planes[0].shape[1]

    @classmethod
    def of_frame(cls, frame: Any, orientation: Orientation = _AS_STORED) -> Self:
        """Returns a decoded frame; an odd side is one pixel longer, its last row or column repeated.

        Args:
          frame: The frame.
          orientation: How it is to be seen.
        """
        colours = Colours(frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
        if frame.width % 2 or frame.height % 2:
            return cls.of_rgb(orientation.upright(frame.to_ndarray(format="rgb24")), colours=colours)
        if frame.format.name in _PLANAR:
            value_range = _PLANAR[frame.format.name]
            colours = dataclasses.replace(colours, value_range=value_range or colours.value_range)
        else:
            if frame.format.is_rgb:
                colours = dataclasses.replace(colours, matrix=1, value_range=1)
            frame = frame.reformat(format="yuv420p", **_target(colours))
        planes = (orientation.upright(_plane(plane)) for plane in frame.planes)
        return cls(tuple(planes), colours)  # type: ignore[arg-type]

    @classmethod
    def of_rgb(cls, image: UInt8[np.ndarray, "h w 3"], *, colours: Colours | None = None) -> Self:
        """Returns an RGB picture; an odd side is one pixel longer, its last row or column repeated."""
        colours = colours or Colours(matrix=1, value_range=1, primaries=1, transfer=1)
        if image.shape[0] % 2 or image.shape[1] % 2:
            image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        return cls(_planes_of_rgb(image, colours), colours)

    def rgb(self, box: Box | None = None) -> UInt8[np.ndarray, "bh bw 3"]:
        """Returns a part of the picture, or all of it; beyond the picture its outermost pixels are repeated.

        Args:
          box: On even pixels.
        """
        left, top, right, bottom = box or (0, 0, *self.size[::-1])
        parts = []
        for plane, step in zip(self.planes, (1, 2, 2), strict=True):
            rows, columns = (
                np.clip(np.arange(first // step, last // step), 0, side - 1)
                for first, last, side in ((top, bottom, plane.shape[0]), (left, right, plane.shape[1]))
            )
            parts.append(plane[rows[:, None], columns])
        return _frame(parts, self.colours).to_ndarray(format="rgb24")

    def change(self, box: Box, before: UInt8[np.ndarray, "bh bw 3"], after: UInt8[np.ndarray, "bh bw 3"]) -> None:
        """Adds what became of a box; what lies beyond the picture is dropped.

        Args:
          box: On even pixels.
          before: What `rgb` gave.
          after: What is to be seen there.
        """
        left, top, _, _ = box
        pairs = zip(_planes_of_rgb(before, self.colours), _planes_of_rgb(after, self.colours), strict=True)
        for plane, (old, new), step in zip(self.planes, pairs, (1, 2, 2), strict=True):
            difference = new.astype(np.int16) - old
            y, x = top // step, left // step
            rows = slice(max(y, 0), max(0, min(y + len(old), plane.shape[0])))
            columns = slice(max(x, 0), max(0, min(x + old.shape[1], plane.shape[1])))
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue
            shown: Int[np.ndarray, "h w"] = difference[
                rows.start - y : rows.stop - y, columns.start - x : columns.stop - x
            ]
            plane[rows, columns] = np.clip(plane[rows, columns] + shown, 0, 255)

    def frame(self) -> Any:
        """Returns the picture for an encoder."""
        return _frame(self.planes, self.colours)


def _frame(planes: Any, colours: Colours) -> Any:
    width = planes[0].shape[1]
    packed = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in planes]).reshape(-1, width)
    frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    target = _target(colours)
    frame.colorspace, frame.color_range = target["dst_colorspace"], target["dst_color_range"]
    return frame


def _target(colours: Colours) -> dict[str, int]:
    matrix = _MATRICES.get(colours.matrix, Colorspace.ITU601)
    value_range = ColorRange.JPEG if colours.value_range == ColorRange.JPEG else ColorRange.MPEG
    return {"dst_colorspace": int(matrix), "dst_color_range": int(value_range)}


def _planes_of_rgb(
    image: UInt8[np.ndarray, "h w 3"], colours: Colours
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "ch cw"], UInt8[np.ndarray, "ch cw"]]:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    luma, blue, red = map(_plane, frame.reformat(format="yuv420p", **_target(colours)).planes)
    return luma, blue, red


def _plane(plane: Any) -> UInt8[np.ndarray, "h w"]:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width].copy()


CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Ending of an output's name -> FFmpeg's name of the format."""

MARK = (
    "Synthetic media: the face in this video was changed by a program"
    f" (asccl-jax {__version__}); it does not show what the person did."
    " https://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
"""What the file's comment and description say; the address is IPTC's term for it, which other programs look for."""

_LEAD_IN_S = 0.15
"""How long before sound is heard its packets are copied where a container can hide them: decoders need some."""

_OVERLAP_S = 0.1
"""How far sound packets may be set back in time; they are then put right after those before, as FFmpeg does."""

_FINEST_COMMON_S = Fraction(1, 1000)
"""A step of time that every container can tell."""

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""By number of channels, for files that do not say which is which."""

_HDR = {16: "HDR (PQ)", 18: "HDR (HLG)"}
"""By number of the transfer curve (ITU-T H.273)."""

_LOG = logging.getLogger(__name__)

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
      rehearsal: Whether nothing is kept: shows whether FFmpeg takes these pictures with this sound.

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
        rehearsal: bool = False,
    ) -> None:
        if path.suffix.lower() not in CONTAINERS:
            raise InputError(f"{path}: expected a name that ends in {', '.join(CONTAINERS)}")
        if not 0 <= crf <= 51:
            raise InputError(f"crf {crf}: expected 0 (lossless) to 51")
        self._path, self._clock, self._rate, self._origin_s = path, clock, rate, origin_s
        self._sound_of, self._aspect, self._title = sound_of, aspect, readable(title or path.stem)
        self._options, self._rehearsal = {"crf": str(crf), "preset": preset}, rehearsal
        self._stack = contextlib.ExitStack()
        self._sound: _Sound | None = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        """Opens the file under another name."""
        with contextlib.ExitStack() as stack:
            target: Any = _Nowhere()
            if not self._rehearsal:
                with self._saying():
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    target = f"file:{stack.enter_context(atomic_file(self._path)).name}"
            if self._sound_of is not None:
                hides = CONTAINERS[self._path.suffix.lower()] != "matroska"
                self._sound = stack.enter_context(_opened_sound(self._sound_of, self._origin_s, hides=hides))
            with self._saying():
                self._container = stack.enter_context(av.open(target, "w", **self._format()))
            self._container.metadata.update(
                title=f"{self._title} (synthetic)", comment=MARK, description=MARK, keywords="synthetic media"
            )
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
            self._stream.codec_context.time_base = self._clock
            if self._sound is not None:
                self._sound.copy_to(self._container, self._path)
                if left := self._sound.left_behind():
                    _LOG.warning("note: %s: not in %s: %s", self._sound_of, self._path, ", ".join(left))
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
        options = {"movie_timescale": str(scale)}
        if not self._rehearsal:  # the index goes to the front in a second pass, for which what was written is read
            options["movflags"] = "+faststart"
        return {"format": kind, "options": options}

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


class _Nowhere(io.RawIOBase):
    """A file that forgets what is written."""

    def __init__(self) -> None:
        super().__init__()
        self._place = self._end = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._place += len(content)
        self._end = max(self._end, self._place)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._end)[whence]
        return self._place

    def tell(self) -> int:
        return self._place


class _Sound:
    """The sound tracks of a file, packet by packet, as far as they are heard.

    Args:
      path: The file.
      container: Open.
      origin_s: Subtracted from all times.
      hides: Whether the output can hold packets that are not heard.
    """

    def __init__(self, path: Path, container: Any, origin_s: Fraction, *, hides: bool) -> None:
        self._path, self._container, self._origin_s, self._hides = path, container, origin_s, hides
        found = find_sound_tracks(container)
        known = [track for track in found if track.codec_context is not None] or found
        # In the order in which they lie in the file.
        self._tracks = [track for track in container.streams.audio if track in known]
        self._packets = container.demux(self._tracks) if self._tracks else iter(())
        self._ready: collections.deque[Any] = collections.deque()
        self._lead_in: dict[int, list[Any]] = {track.index: [] for track in self._tracks}
        self._before: dict[int, int] = {}
        self._targets: dict[int, Any] = {}

    @property
    def clocks(self) -> list[int]:
        """Ticks a second of each track."""
        return [track.time_base.denominator for track in self._tracks]

    def copy_to(self, output: Any, path: Path) -> None:
        for track in self._tracks:
            try:
                target = output.add_stream_from_template(track)
            except (ValueError, av.error.FFmpegError) as error:
                name = track.codec_context.name if track.codec_context else "unknown"
                other = "" if path.suffix.lower() == ".mkv" else "name an output that ends in .mkv, or "
                raise InputError(
                    f"{self._path}: its sound is {name}, which {path.suffix} cannot hold as it is; {other}convert it to"
                    " AAC first"
                ) from error
            codec = track.codec_context
            if codec is not None and codec.layout.name == f"{codec.channels} channels" and codec.channels in _LAYOUTS:
                target.codec_context.layout = _LAYOUTS[codec.channels]
            target.metadata.update(_kept_tags(track.metadata))
            target.disposition = track.disposition
            self._targets[track.index] = target

    def left_behind(self) -> list[str]:
        """Returns what else is in the file, in words."""
        return _left_behind(self._container, self._tracks)

    def packets(self, until_s: Fraction | None) -> Iterator[Any]:
        """Yields the packets that begin before a time, or all that are left."""
        while self._ready or self._read():
            packet = self._ready[0]
            if until_s is not None and packet.dts * packet.time_base > until_s:
                return
            self._ready.popleft()
            packet.stream = self._targets[packet.stream_index]
            yield packet

    def _read(self) -> bool:
        """Reads on until a packet is to be copied; False at the end."""
        try:
            for packet in self._packets:
                if packet.size and packet.dts is not None:
                    self._take(packet)
                    if self._ready:
                        return True
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self._path}: its sound cannot be read: {error.strerror or error}") from error
        return False

    def _take(self, packet: Any) -> None:
        """Makes a packet ready, its times counted from the origin; what is not heard is dropped, but for a lead-in."""
        shift = round(self._origin_s / packet.time_base)
        packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
        packet.dts -= shift
        waiting = self._lead_in.get(packet.stream_index)
        if packet.is_discard:
            if waiting is not None and self._hides:
                waiting.append(packet)
            return
        for earlier in waiting or ():
            if (packet.pts - earlier.pts) * packet.time_base <= _LEAD_IN_S:
                self._put(earlier)
        self._lead_in.pop(packet.stream_index, None)
        self._put(packet)

    def _put(self, packet: Any) -> None:
        before = self._before.get(packet.stream_index)
        if before is not None and packet.dts <= before:
            back_s = float((before - packet.dts) * packet.time_base)
            if back_s > _OVERLAP_S:
                raise InputError(
                    f"{self._path}: non monotonically increasing dts: the time of its sound jumps back by"
                    f" {back_s:.2f} s at {float(packet.dts * packet.time_base):.2f} s; recordings joined byte by byte?"
                    " Join the parts with FFmpeg's concat demuxer, or re-encode the sound"
                )
            step = max(1, math.ceil(_FINEST_COMMON_S / packet.time_base))
            packet.pts += before + step - packet.dts
            packet.dts = before + step
        self._before[packet.stream_index] = packet.dts
        self._ready.append(packet)


def _kept_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """What a track says of itself, as every container and player looks for it."""
    title = tags.get("title") or tags.get("name")  # Matroska, mp4
    kept = {"language": tags.get("language"), "title": title, "handler_name": title or tags.get("handler_name")}
    return {tag: value for tag, value in kept.items() if value}


def _left_behind(container: Any, sound: list[Any]) -> list[str]:
    pictures = find_picture_track(container)
    found = []
    if pictures is not None and pictures.codec_context.format is not None:
        form, transfer = pictures.codec_context.format, pictures.codec_context.color_trc
        if any(component.is_alpha for component in form.components) or pictures.metadata.get("alpha_mode") == "1":
            found.append("transparency")
        bits = max(component.bits for component in form.components)
        if bits > 8:
            found.append(f"{bits} bits a colour{f' of {_HDR[transfer]}' if transfer in _HDR else ''} (8 are kept)")
    named = {"video": "picture", "audio": "sound", "subtitle": "subtitle"}
    kinds: dict[str, list[str]] = {}
    for track in container.streams:
        if track is not pictures and track not in sound:
            kinds.setdefault(named.get(track.type, track.type), []).append(track.metadata.get("language", ""))
    for kind, languages in kinds.items():
        told = ", ".join(language for language in languages if language not in ("", "und"))
        found.append(f"{len(languages)} {kind} track{'s' * (len(languages) > 1)}{f' ({told})' if told else ''}")
    if chapters := container.chapters():
        found.append(f"{len(chapters)} chapter{'s' * (len(chapters) > 1)}")
    return found


@contextlib.contextmanager
def _opened_sound(path: Path, origin_s: Fraction, *, hides: bool) -> Iterator[_Sound]:
    try:
        with open_media(path) as container:
            yield _Sound(path, container, origin_s, hides=hides)
    except BrokenMediaError as error:
        raise InputError(f"{path}: {error}") from error


def refusal_of_sound(path: Path, output: Path) -> str:
    """Returns why FFmpeg does not write a file's sound, in its own words; empty if it does.

    Args:
      path: With the sound.
      output: Name of a file, whose ending tells the container; not written.
    """
    form = CONTAINERS[output.suffix.lower()]
    # FFmpeg may speak here: no codec is open whose threads would have to wait for the interpreter.
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with (
            av.logging.Capture() as words,
            _opened_sound(path, Fraction(0), hides=form != "matroska") as sound,
            av.open(_Nowhere(), "w", format=form) as container,
        ):
            sound.copy_to(container, output)
            try:
                for packet in sound.packets(None):
                    container.mux(packet)
                container.close()
            except av.error.FFmpegError as error:
                return words[-1][2].strip() if words else str(error.strerror)
    finally:
        av.logging.set_level(level)
    return ""


def is_same_file(first: Path, second: Path) -> bool:
    """Returns whether two names are those of one file that exists."""
    return first.exists() and second.exists() and first.samefile(second)


# A small word in a corner of the picture, which says that it is synthetic.

_WORD = "SYNTHETIC"
_SHARE = 0.03
"""Height of the letters over that of the picture."""

_LEAST_PX = 7
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHADE = 0.45
"""Brightness that is left of the picture behind the word."""


def draw_label(picture: YuvPicture) -> None:
    """Writes the word into the lower left corner of a picture, white on a darkened strip."""
    height, width = picture.size
    letters = _letters(max(_LEAST_PX, round(_SHARE * min(height, width))))
    rows, columns = min(letters.shape[0], height), min(letters.shape[1], width)
    box = (0, height - rows, columns, height)
    before = picture.rgb(box)
    strength = letters[:rows, :columns, None].astype(np.float32) / 255
    after = before * _SHADE * (1 - strength) + 255 * strength
    picture.change(box, before, np.rint(after).astype(np.uint8))


@functools.lru_cache(maxsize=4)
def _letters(height_px: int) -> UInt8[np.ndarray, "h w"]:
    """The word, white on black, in a strip of even sides."""
    scale = cv2.getFontScaleFromHeight(_FONT, height_px)
    thickness = max(1, round(height_px / 9))
    (width, height), below = cv2.getTextSize(_WORD, _FONT, scale, thickness)
    margin = max(2, height_px // 3)
    strip = np.zeros((height + below + 2 * margin, width + 2 * margin), np.uint8)
    cv2.putText(strip, _WORD, (margin, margin + height), _FONT, scale, 255, thickness, cv2.LINE_AA)
    return strip[: len(strip) // 2 * 2, : strip.shape[1] // 2 * 2]
