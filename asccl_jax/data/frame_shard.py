"""One shard of frames, or of their renders: written whole, and described for the manifest."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import simplejpeg

from asccl_jax.data.manifest import ClipEntry, Shard, kind_directory, shard_name
from asccl_jax.data.records import RecordSource, RecordWriter, file_sha256
from asccl_jax.data.schema import EMOTIONS, UNLABELLED, FrameRecord, RenderRecord
from asccl_jax.errors import InputError

__all__ = ["RenderShard", "ShardEntry", "read_frame_shard", "write_frame_shard", "write_render_shard"]


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """One finished frame shard, as `finish_dataset` wants it; can be pickled.

    Attributes:
      split: Its split.
      number: Its position in the split.
      count: Shards of the split.
      shard: Its line in the manifest.
      image_size: Side of its images in pixels; None without records.
      clips: Its clips by id, frame rate and source still empty.
    """

    split: str
    number: int
    count: int
    shard: Shard
    image_size: int | None
    clips: Mapping[str, ClipEntry]


@dataclasses.dataclass(frozen=True)
class RenderShard:
    """One finished shard of renders, as `finish_dataset` wants it.

    Attributes:
      shard: Its line in the manifest.
      flags: Runs (flags, frames) of each clip by its id, see `ClipEntry.flags`.
    """

    shard: Shard
    flags: Mapping[str, tuple[tuple[int, int], ...]]


def write_frame_shard(
    directory: Path | str, split: str, shard: int, shard_count: int, frames: Iterable[FrameRecord]
) -> ShardEntry:
    """Writes one shard of frames, whole or not at all.

    Args:
      directory: The data set's directory.
      split: Split of the frames.
      shard: Number of the shard in the split.
      shard_count: Shards of the split.
      frames: The frames, each clip's together and in the order of their position.

    Returns:
      What `finish_dataset` wants to know of the shard.

    Raises:
      InputError: A clip comes twice or out of order, an emotion is unknown, or an image is no square RGB JPEG of the
        size of the others.
    """
    name = shard_name("frames", split, shard, shard_count)
    table = _ClipTable(split, shard)
    with RecordWriter(Path(directory) / name) as writer:
        for frame in frames:
            table.add(frame)
            writer.write(frame.encode())
    return table.entry(shard_count, Shard(name, writer.records, writer.sha256))


def read_frame_shard(directory: Path | str, split: str, shard: int, shard_count: int) -> ShardEntry | None:
    """Returns what `write_frame_shard` returned for a shard, from the file; None where there is no such file.

    For runs that resume: reads and checks every record, so a damaged shard raises `InputError`.
    """
    name = shard_name("frames", split, shard, shard_count)
    path = Path(directory) / name
    if not path.is_file():
        return None
    table = _ClipTable(split, shard)
    source = RecordSource([path])
    for data in source:
        table.add(FrameRecord.decode(data))
    return table.entry(shard_count, Shard(name, len(source), file_sha256(path)))


def write_render_shard(
    directory: Path | str, split: str, shard: int, shard_count: int, renders: Iterable[RenderRecord]
) -> RenderShard:
    """Writes one shard of renders, whole or not at all, and returns what `finish_dataset` wants to know of it.

    Args:
      directory: The data set's directory.
      split: Split of the renders.
      shard: Number of the shard in the split.
      shard_count: Shards of the split.
      renders: One for each frame of the frame shard of the same number, in its order.

    Raises:
      InputError: Some records have a picture that others lack.
    """
    name = shard_name("renders", split, shard, shard_count)
    folder = kind_directory(Path(directory), "renders")
    folder.mkdir(exist_ok=True)
    absent: frozenset[str] | None = None
    flags: dict[str, list[int]] = collections.defaultdict(list)
    with RecordWriter(folder / name) as writer:
        for render in renders:
            if absent not in (None, render.absent()):
                raise InputError(
                    f"clip {render.clip!r}, frame {render.frame}: without {sorted(render.absent())}, others without"
                    f" {sorted(absent or ())}; one data set has one kind of pictures"
                )
            absent = render.absent()
            flags[render.clip].append(render.flags)
            writer.write(render.encode())
    return RenderShard(
        Shard(name, writer.records, writer.sha256), {clip: flag_runs(found) for clip, found in flags.items()}
    )


def flag_runs(flags: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Returns the flags of a clip's frames as runs (flags, frames).

    >>> flag_runs([0, 0, 9, 0])
    ((0, 2), (9, 1), (0, 1))
    """
    return tuple((value, len(list(run))) for value, run in itertools.groupby(map(int, flags)))


class _ClipTable:
    """Gathers the clip entries of one shard, record by record."""

    def __init__(self, split: str, number: int) -> None:
        self._split, self._number = split, number
        self._records = 0
        self._image_size: int | None = None
        self._clips: dict[str, ClipEntry] = {}
        self._last = ""
        self._runs: list[tuple[int, int]] = []

    def add(self, frame: FrameRecord) -> None:
        if frame.clip != self._last:
            self._open(frame)
        named = self._clips[frame.clip]
        if (frame.speaker, frame.emotion, frame.sentence) != (named.speaker, named.emotion, named.sentence):
            raise InputError(
                f"clip {frame.clip!r}, frame {frame.frame}: speaker, emotion or sentence differ in the clip"
            )
        position = int(frame.frame)
        if self._runs and position <= self._runs[-1][1]:
            raise InputError(f"clip {frame.clip!r}: frame {position} after frame {self._runs[-1][1]}, expected rising")
        if self._runs and position == self._runs[-1][1] + 1:
            self._runs[-1] = (self._runs[-1][0], position)
        else:
            self._runs.append((position, position))
        size = _jpeg_size(frame)
        if self._image_size not in (None, size):
            raise InputError(f"clip {frame.clip!r}, frame {position}: {size} pixels wide, others {self._image_size}")
        self._image_size = size
        self._records += 1

    def _open(self, frame: FrameRecord) -> None:
        self._close()
        if frame.clip in self._clips or not frame.clip:
            raise InputError(f"clip {frame.clip!r}: expected a name, and its frames together")
        if frame.emotion not in (*EMOTIONS, UNLABELLED):
            raise InputError(f"clip {frame.clip!r}: emotion {frame.emotion!r}, expected one of {', '.join(EMOTIONS)}")
        labels = {"speaker": frame.speaker, "emotion": frame.emotion, "sentence": frame.sentence}
        place = {"split": self._split, "shard": self._number, "first_record": self._records}
        self._clips[frame.clip] = ClipEntry(**labels, **place, fps=0.0, source="", frames=())  # type: ignore[arg-type]
        self._last, self._runs = frame.clip, []

    def _close(self) -> None:
        if self._last:
            self._clips[self._last] = dataclasses.replace(self._clips[self._last], frames=tuple(self._runs))

    def entry(self, shard_count: int, shard: Shard) -> ShardEntry:
        self._close()
        return ShardEntry(self._split, self._number, shard_count, shard, self._image_size, self._clips)


def _jpeg_size(frame: FrameRecord) -> int:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(frame.image)
    except ValueError as error:
        raise InputError(f"clip {frame.clip!r}, frame {frame.frame}: its image is no JPEG file ({error})") from error
    if height != width or colours not in ("YCbCr", "RGB"):
        shape = f"{width} x {height} in {colours}"
        raise InputError(f"clip {frame.clip!r}, frame {frame.frame}: image of {shape}, expected a square in colour")
    return height
