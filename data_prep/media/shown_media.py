"""What a media file shows, and when: the one place that all stages ask, so that they agree on frames and times.

A file holds more than it shows: edit lists hide what was trimmed away, covers are no video, of several tracks one is
the default. Times are those of the packets. Where a container has none (AVI, raw streams), packets follow one another
as they lie in it. Pictures of two instants (interlaced) are made pictures of one, as many and at the same times.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.stream import Disposition
from av.video.reformatter import Colorspace
from jaxtyping import Bool, UInt8

__all__ = [
    "BrokenMediaError",
    "Orientation",
    "ShownPicture",
    "find_picture_track",
    "find_sound_tracks",
    "first_heard_s",
    "first_shown_s",
    "frame_rate",
    "named_errors",
    "open_media",
    "picture_track",
    "shown_packet_times",
    "shown_pictures",
]

_NO_TIMES = frozenset(["avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "vc1", "obu"])
"""Containers, by FFmpeg's name, that do not say when a picture is shown: only in which order they are decoded."""

_CLOCK_MAY_JUMP = frozenset(["mpegts", "mpeg"])
"""Containers whose clock starts anew where recordings are joined end to end."""

_STUMBLE_S = 0.25
"""How far broken files may set back a picture's time; it is then shown right after the one before."""

_LEAP_S = 10.0
"""A step that no recording makes but one from another clock."""

_LEAST_READ = 0.9  # Share of the announced packets below which a file counts as truncated.

_UNSURE_S = 0.5  # How long a last packet may be that does not say it.

_LOOKED_AT = 16  # Pictures, held in memory, by which is decided whether a file is interlaced.

_TALLEST_INTERLACED = 1152  # Lines; above, files are not interlaced unless they say so.

_NOT_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

_UNSAID = 2
"""Number of the colour matrix of a file that does not say it (ITU-T H.273)."""


class BrokenMediaError(ValueError):
    """A file that cannot be used; the message is the reason, as the report words it."""


@dataclasses.dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned to be seen: mirrored along its diagonal, then along its axes.

    Attributes:
      transposed: Whether rows become columns.
      flipped_x: Whether left and right are exchanged, after that.
      flipped_y: Whether top and bottom are.
    """

    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    def upright(self, plane: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h2 w2 *c"]:
        """Returns a stored picture, or one of its planes, as it is to be seen."""
        seen = plane.swapaxes(0, 1) if self.transposed else plane
        seen = seen[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1]
        return np.ascontiguousarray(seen)

    @classmethod
    def of(cls, frame: Any) -> Orientation:
        """Returns that of a decoded frame, by its display matrix.

        Raises:
          BrokenMediaError: It is not turned by quarters.
        """
        if "DISPLAYMATRIX" not in frame.side_data:
            return cls()
        # x' = a x + c y, y' = b x + d y
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(frame.side_data["DISPLAYMATRIX"])[:36])
        straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
        if not straight and not crossed:
            return cls()  # no matrix that could be meant
        if max(abs(b), abs(c)) * 50 < straight:
            return cls(flipped_x=a < 0, flipped_y=d < 0)
        if max(abs(a), abs(d)) * 50 < crossed:
            return cls(transposed=True, flipped_x=c < 0, flipped_y=b < 0)
        degrees = np.degrees(np.arctan2(b, a))
        raise BrokenMediaError(
            f"its display matrix turns pictures by {degrees:.0f} degrees; expected quarter turns: re-encode it upright"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ShownPicture:
    """A picture that a file shows.

    Attributes:
      index: 0-based number among those shown.
      frame: As decoded, of one instant, its colour matrix known where that can be.
      pts: Presentation time in ticks of the track's clock, later than that before.
      duration: For how long it is shown, in ticks; 0 if not known.
      orientation: How it is to be seen.
      damaged: Whether the decoder says that it is.
      deinterlaced: Whether it was made from the fields of two instants.
    """

    index: int
    frame: Any
    pts: int
    duration: int
    orientation: Orientation
    damaged: bool
    deinterlaced: bool


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """Opens a media file.

    Raises:
      BrokenMediaError: It cannot be read.
    """
    # PyAV's log level stays unset: any level sends FFmpeg's messages through Python, and a decoder's thread that waits
    # for the interpreter while `close` waits for the thread hangs a program of several threads.
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BrokenMediaError(f"cannot be opened: {error.strerror}") from error
    if size == 0:
        raise BrokenMediaError("an empty file")
    with named_errors("file"):
        # Before a colon, were it the hour of `10:30:05.mp4`, FFmpeg looks for a protocol. Tags may be no UTF-8.
        container = av.open(f"file:{path}", metadata_errors="replace")
    with container:
        yield container


@contextlib.contextmanager
def named_errors(what: str, where: Any = lambda: "") -> Iterator[None]:
    """Turns what FFmpeg says while something is read into `BrokenMediaError`."""
    try:
        yield
    except av.error.InvalidDataError as error:
        meaning = "not a video, or truncated (wrong extension?)" if what == "file" else f"truncated or damaged {what}"
        raise BrokenMediaError(f"{meaning}{where()}: {error.strerror}") from error
    except (av.error.FFmpegError, OSError) as error:
        raise BrokenMediaError(f"{what} cannot be decoded{where()}: {error.strerror or error}") from error


def find_picture_track(container: Any) -> Any:
    """Returns the track of pictures that players show, or None: the default one, never a cover."""
    tracks = [track for track in container.streams.video if not track.disposition & _NOT_PICTURES]
    tracks = [track for track in tracks if track.codec_context is not None]
    return next((track for track in tracks if track.disposition & Disposition.default), tracks[0] if tracks else None)


def picture_track(container: Any) -> Any:
    """Returns the track of pictures that players show, ready to be decoded.

    Raises:
      BrokenMediaError: There is none, or the file is a still image.
    """
    if "pipe" in container.format.name or container.format.name == "image2":
        raise BrokenMediaError(f"a still image ({container.format.name}), not a video: wrong extension?")
    track = find_picture_track(container)
    if track is None:
        raise BrokenMediaError("no video track")
    track.thread_type = "AUTO"
    track.codec_context.thread_count = 2
    return track


def find_sound_tracks(container: Any) -> list[Any]:
    """Returns the tracks of sound, the one that players play first; such as no decoder knows come last."""
    tracks = list(container.streams.audio)
    return sorted(tracks, key=lambda track: (track.codec_context is None, not track.disposition & Disposition.default))


def frame_rate(track: Any) -> Fraction:
    """Returns the mean frames a second that a file gives for its pictures; 25, as FFmpeg, where it gives none."""
    return Fraction(track.average_rate or track.guessed_rate or 25)


def shown_pictures(container: Any, track: Any) -> Iterator[ShownPicture]:
    """Yields the pictures that a file shows in order of presentation, each as it is asked for.

    Args:
      container: From `open_media`, nothing read from it.
      track: Its `picture_track`.

    Raises:
      BrokenMediaError: The file breaks off, is damaged, or consists of several recordings, each with its own clock.
    """
    packets = _Packets(container, track)
    count = 0
    with named_errors("video", lambda: f" after {count} of {track.frames or 'unknown'} frames"):
        decoded = packets.frames()
        head = list(itertools.islice(decoded, _LOOKED_AT))
        clock = _Clock(container, track, packets, head)
        fields = _fields(head)
        taken: collections.deque[tuple[int, int, bool]] = collections.deque()

        def noted() -> Iterator[Any]:
            for frame in itertools.chain(head, decoded):
                taken.append((clock.next(frame), frame.duration or 0, frame.is_corrupt))
                yield frame

        for frame in noted() if fields is None else _deinterlaced(noted(), fields):
            pts, duration, damaged = taken.popleft()
            if frame.colorspace == _UNSAID and (frame.height >= 720 or frame.width >= 1280):
                frame.colorspace = int(Colorspace.ITU709)  # what cameras mean, and players take, where nothing is said
            yield ShownPicture(count, frame, pts, duration, Orientation.of(frame), damaged, fields is not None)
            count += 1
    if count == 0:
        raise BrokenMediaError("no picture can be decoded")
    packets.check_whole(count)


def shown_packet_times(container: Any, track: Any) -> tuple[list[int], int]:
    """Returns when pictures are shown, in ticks and rising, and how long the last one is; decodes nothing.

    Args:
      container: From `open_media`, nothing read from it.
      track: Its `picture_track`.
    """
    times: list[int] = []
    duration = 0
    ordered = container.format.name in _NO_TIMES
    step = _usual_step(track)
    for packet in container.demux(track):
        if packet.size and not packet.is_discard:
            time = packet.dts if ordered or packet.pts is None else packet.pts
            times.append(time if time is not None else len(times) * step)
            duration = packet.duration or duration
    return sorted(times), duration or step


def first_shown_s(container: Any, track: Any) -> Fraction:
    """Returns the time of the first picture on the file's clock.

    Args:
      container: From `open_media`, nothing read from it.
      track: Its `picture_track`.
    """
    packets = _Packets(container, track)
    with named_errors("video"):
        head = list(itertools.islice(packets.frames(), 1))
    return _Clock(container, track, packets, head).next(head[0]) * track.time_base if head else Fraction(0)


def first_heard_s(container: Any, tracks: Sequence[Any]) -> Fraction | None:
    """Returns the time at which sound begins to be heard on the file's clock; None without any.

    What comes before belongs to a codec's lead-in, or was trimmed away.

    Args:
      container: From `open_media`, nothing read from it.
      tracks: Of sound.
    """
    begun: dict[int, Fraction] = {}
    heard: dict[int, Fraction] = {}
    for packet in container.demux(*tracks) if tracks else ():
        if not packet.size or packet.pts is None:
            continue
        time_s, number = packet.pts * packet.time_base, packet.stream_index
        begun.setdefault(number, time_s + _skipped_s(packet))
        if not packet.is_discard:
            heard.setdefault(number, max(begun[number], time_s))
        # Tracks lie side by side: one that is not heard by now begins later.
        if len(heard) == len(tracks) or (heard and time_s > min(heard.values()) + 1):
            break
    return min(heard.values(), default=None)


def _skipped_s(packet: Any) -> Fraction:
    """How much of what begins with a packet is decoded, but not to be heard."""
    codec = packet.stream.codec_context
    if not packet.has_sidedata("skip_samples") or not codec:
        return Fraction(0)
    (samples,) = struct.unpack_from("<I", bytes(packet.get_sidedata("skip_samples")))
    return Fraction(samples, codec.sample_rate or 48000)


def _usual_step(track: Any) -> int:
    return max(1, round(1 / (frame_rate(track) * track.time_base)))


class _Packets:
    """The packets of a track of pictures: decoded, counted, their order kept.

    Args:
      container: Nothing read from it.
      track: Of pictures.
    """

    def __init__(self, container: Any, track: Any) -> None:
        self._container, self._track = container, track
        self._read, self._end_s = 0, Fraction(0)
        self._begun = False
        self.interlaced = False
        """Whether pictures are flagged so."""
        self.decoding_times: collections.deque[int | None] = collections.deque()
        """Of what is shown, from the first picture that can be decoded on; taken away by the clock that uses them."""
        self.distinct = False
        """Whether some packet is shown at another time than it is decoded."""

    def frames(self) -> Iterator[Any]:
        """Yields what the decoder gives."""
        decoded = False
        # Matroska tells how long its longest track is, which shows whether it is whole: all are read.
        tracks = () if "matroska" in self._container.format.name else (self._track,)
        for packet in self._container.demux(*tracks):
            if packet.pts is not None:
                self._end_s = max(self._end_s, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != self._track.index:
                continue
            self._note(packet)
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                if decoded:
                    raise
                continue  # a recording that begins within a group of pictures
            decoded = decoded or bool(frames)
            self.interlaced = self.interlaced or any(frame.interlaced_frame for frame in frames)
            yield from frames

    def _note(self, packet: Any) -> None:
        if not packet.size:  # AVI repeats the picture before, or the end
            return
        self._read += 1
        self._begun = self._begun or packet.is_keyframe
        self.distinct = self.distinct or packet.pts != packet.dts
        if self._begun and not packet.is_discard:
            self.decoding_times.append(packet.dts)

    def check_whole(self, shown: int) -> None:
        """Raises `BrokenMediaError` if much of what the file announces is not in it."""
        name, expected = self._container.format.name, self._track.frames
        read = shown
        if "mp4" in name:  # the header counts what edit lists hide, and what they leave out
            expected = sum(entry.size > 0 for entry in self._track.index_entries)
            hidden = sum(entry.is_discard for entry in self._track.index_entries)
            # Fields may come one a packet: two of them are a picture.
            read = self._read if self.interlaced else min(self._read, shown + hidden)
        elif name == "avi":  # the header counts empty chunks, too, which take their time
            read = round(self._end_s / self._track.time_base)
        elif "matroska" in name:
            whole_s, end_s = (self._container.duration or 0) / av.time_base, float(self._end_s)
            if end_s < min(_LEAST_READ * whole_s, whole_s - _UNSURE_S):
                raise BrokenMediaError(f"truncated: ends after {end_s:.2f} of {whole_s:.2f} s")
        if read < _LEAST_READ * expected:
            raise BrokenMediaError(f"truncated: {read} of {expected} frames can be read")


class _Clock:
    """When each picture is shown.

    Args:
      container: Tells which container it is.
      track: Of pictures.
      packets: From which they were decoded.
      head: The first of them.
    """

    def __init__(self, container: Any, track: Any, packets: _Packets, head: Sequence[Any]) -> None:
        self._track, self._packets = track, packets
        self._step = _usual_step(track)
        self._leap_s = _LEAP_S if container.format.name in _CLOCK_MAY_JUMP else float("inf")
        times = [frame.pts for frame in head if frame.pts is not None]
        # Some programs write times of decoding for those of presentation.
        mistaken = not packets.distinct and any(later < earlier for earlier, later in itertools.pairwise(times))
        self._ordered = container.format.name in _NO_TIMES or mistaken
        self._last: int | None = None
        self._count = 0

    def next(self, frame: Any) -> int:
        """Returns the next picture's time in ticks."""
        time = frame.pts
        if self._ordered:
            waiting = self._packets.decoding_times
            time = waiting.popleft() if waiting else None
        else:
            self._packets.decoding_times.clear()
        last, self._count = self._last, self._count + 1
        if time is None:
            time = 0 if last is None else last + self._step
        elif last is not None:
            self._check_step(last, time)
            time = max(time, last + 1)
        self._last = time
        return int(time)

    def _check_step(self, last: int, time: int) -> None:
        step_s = float((time - last) * self._track.time_base)
        if -_STUMBLE_S <= step_s <= self._leap_s:
            return
        before_s, after_s = (float(ticks * self._track.time_base) for ticks in (last, time))
        raise BrokenMediaError(
            f"non monotonically increasing times: after frame {self._count - 2} its clock jumps from {before_s:.2f} s"
            f" to {after_s:.2f} s; recordings joined byte by byte? Join the parts with FFmpeg's concat demuxer, or cut"
            " the video there"
        )


def _fields(head: Sequence[Any]) -> str | None:
    """Returns how the pictures that begin a video are to be deinterlaced, for FFmpeg's bwdif; None if they are not.

    A flag alone does not tell: progressive video comes flagged, and fields come without a flag. Interlaced, the fields
    of two pictures that are next to each other in time fit together better than those that are not.
    """
    if not head:
        return None
    flagged = any(frame.interlaced_frame for frame in head)
    if not flagged and head[0].height > _TALLEST_INTERLACED:
        return None
    luma = [_luma(frame) for frame in head]
    luma = [plane for plane in luma if plane.shape == luma[0].shape]
    own = sum(_combs(plane) for plane in luma[:-1])
    top_first = sum(_combs(_woven(later, earlier)) for earlier, later in itertools.pairwise(luma))
    bottom_first = sum(_combs(_woven(earlier, later)) for earlier, later in itertools.pairwise(luma))
    least, most = sorted((top_first, bottom_first))
    moved = most > _LEAST_COMBS * max(len(luma) - 1, 1)
    if moved and own < 0.6 * least:
        return None  # the two fields of a picture fit better than those of neighbours: of one instant
    seen = moved and least < 0.75 * most
    if not flagged and not seen:
        return None
    # Which field comes first is flagged wrongly often enough that what is seen goes before.
    parity = ("tff" if top_first < bottom_first else "bff") if seen else "auto"
    return f"mode=send_frame:parity={parity}:deint={'interlaced' if flagged else 'all'}"


_LEAST_COMBS = 0.002
"""Share of pixels that stand out of their neighbours above and below where fields of different instants are woven."""

_COMB = 12  # Levels by which they stand out.


def _luma(frame: Any) -> UInt8[np.ndarray, "h w"]:
    """Brightness in about 160 columns, which are enough."""
    if frame.format.is_planar and frame.format.components[0].bits == 8:
        plane = frame.planes[0]
        image = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    else:
        image = frame.reformat(format="gray").to_ndarray()
    return np.asarray(image[:, :: max(1, frame.width // 160)])


def _woven(top: UInt8[np.ndarray, "h w"], bottom: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    woven = top.copy()
    woven[1::2] = bottom[1::2]
    return woven


def _combs(luma: UInt8[np.ndarray, "h w"]) -> float:
    lines = luma.astype(np.int16)
    above, below = lines[1:-1] - lines[:-2], lines[1:-1] - lines[2:]
    combed: Bool[np.ndarray, "h w"] = (np.minimum(above, below) > _COMB) | (np.maximum(above, below) < -_COMB)
    return float(combed.mean()) if combed.size else 0.0


def _deinterlaced(frames: Iterable[Any], how: str) -> Iterator[Any]:
    """Yields as many pictures, each of the instant of its first field."""
    for _, alike in itertools.groupby(frames, lambda frame: (frame.width, frame.height, frame.format.name)):
        first = next(alike)
        graph = _graph(first, how)
        for frame in itertools.chain([first], alike, [None]):
            graph.push(frame)
            yield from _waiting(graph)


def _graph(frame: Any, how: str) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
    )
    filtered, sink = graph.add("bwdif", how), graph.add("buffersink")
    source.link_to(filtered)
    filtered.link_to(sink)
    graph.configure()
    return graph


def _waiting(graph: Graph) -> Iterator[Any]:
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
