"""The manifest of a data set: its shards with their checksums, its splits, and where each clip's frames lie."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64

from asccl_jax.data.schema import EMOTIONS, RECORD_TYPES, SCHEMA_VERSION, UNLABELLED, Kind
from asccl_jax.errors import InputError
from asccl_jax.work import write_atomically

__all__ = [
    "MANIFEST_NAME",
    "ClipEntry",
    "FrameIndex",
    "Manifest",
    "Shard",
    "Split",
    "Twin",
    "evenly_spaced",
    "find_twins",
    "kind_directory",
    "read_manifest",
    "shard_name",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"

_PREPARE = "make a data set with `asccl prepare` (or `python -m data_prep`)"


def shard_name(kind: Kind, split: str, shard: int, shard_count: int) -> str:
    """Returns a shard's file name, which TFDS composes the same way; refuses a split name that is no plain word."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", split):
        raise InputError(f"split name {split!r}: expected lower-case letters, digits and underscores")
    return f"asccl_{kind}-{split}.tfrecord-{shard:05d}-of-{shard_count:05d}"


def kind_directory(directory: Path, kind: Kind) -> Path:
    """Returns where the shards of a kind lie: frames in the directory itself, the others in one of their own."""
    return directory if kind == "frames" else directory / kind


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records: its name without directory, how many it holds, and its SHA-256 in hexadecimal."""

    name: str
    records: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """The shards of one split, in order; renders, where there are any, match the frames record by record."""

    frames: tuple[Shard, ...] = ()
    pairs: tuple[Shard, ...] = ()
    comparisons: tuple[Shard, ...] = ()
    renders: tuple[Shard, ...] = ()

    def shards(self, kind: Kind) -> tuple[Shard, ...]:
        """Returns the shards of one kind."""
        return {
            "frames": self.frames,
            "renders": self.renders,
            "pairs": self.pairs,
            "comparisons": self.comparisons,
        }[kind]

    def records(self, kind: Kind) -> int:
        """Returns how many records of one kind the split holds."""
        return sum(shard.records for shard in self.shards(kind))


@dataclasses.dataclass(frozen=True)
class ClipEntry:
    """Where the frames of one clip lie: consecutive records of one shard, in the order of their position.

    Attributes:
      speaker: Whose face.
      emotion: One of `schema.EMOTIONS`, or `schema.UNLABELLED`.
      sentence: What is said.
      split: Split of the frames.
      fps: Frame rate of the source video.
      source: The source video as the person named it.
      shard: Number of the shard in the split.
      first_record: Number of the clip's first frame in that shard.
      frames: Runs (first, last) of the positions in the source video that were kept, both ends included.
      flags: Runs (flags, frames) of what a reconstruction says of the kept frames (see `schema.RenderRecord`); empty
        where nothing was reconstructed, and in manifests of before they were noted.
    """

    speaker: str
    emotion: str
    sentence: str
    split: str
    fps: float
    source: str
    shard: int
    first_record: int
    frames: tuple[tuple[int, int], ...]
    flags: tuple[tuple[int, int], ...] = ()

    @property
    def frame_count(self) -> int:
        """Frames kept."""
        return sum(last - first + 1 for first, last in self.frames)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ClipEntry:
        """Returns the entry of what `dataclasses.asdict` made, as it comes back from JSON."""
        runs = {name: tuple((int(one), int(two)) for one, two in fields.get(name, ())) for name in ("frames", "flags")}
        return cls(**{**fields, **runs})

    def positions(self) -> Int64[np.ndarray, " n"]:
        """Returns the position in the source video of each kept frame."""
        runs = [np.arange(first, last + 1) for first, last in self.frames]
        return np.concatenate(runs) if runs else np.zeros(0, np.int64)

    def frame_flags(self) -> Int64[np.ndarray, " n"] | None:
        """Returns the flags of each kept frame, or None where the manifest does not tell them."""
        if not self.flags:
            return None
        return np.repeat(*np.array(self.flags, np.int64).T)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All there is to know of a data set without opening a shard.

    Attributes:
      name: What the person called it.
      image_size: Side in pixels of every stored image.
      splits: "train", "validation" and perhaps "test" and "comparisons".
      clips: Every clip by its id.
      settings: How the data was prepared; for people and reports, nothing reads it back.
      schema_version: `schema.SCHEMA_VERSION` of the writer.
    """

    name: str
    image_size: int
    splits: Mapping[str, Split]
    clips: Mapping[str, ClipEntry]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def speakers(self, split: str) -> list[str]:
        """Returns the speakers of one split, sorted."""
        return sorted({clip.speaker for clip in self.clips.values() if clip.split == split})

    def split(self, name: str) -> Split:
        """Returns a split; raises `InputError` where there is none of that name."""
        if name not in self.splits:
            raise InputError(f"data set {self.name!r} has no split {name!r}; it has {', '.join(self.splits) or 'none'}")
        return self.splits[name]

    def to_json(self) -> str:
        """Returns the manifest as JSON text; equal manifests give equal text."""
        fields = dataclasses.asdict(self)
        for clip in fields["clips"].values():
            if not clip["flags"]:  # of data that nothing was reconstructed of
                del clip["flags"]
        return json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Returns the manifest in JSON text.

        Raises:
          InputError: Not JSON, of another schema version, a field is missing or makes no sense.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise InputError(
                    f"schema version {version!r}, this program reads {SCHEMA_VERSION}; prepare the data set again"
                )
            splits = {
                name: Split(**{kind: tuple(Shard(**shard) for shard in _listed(split, kind)) for kind in RECORD_TYPES})
                for name, split in fields.pop("splits").items()
            }
            clips = {name: ClipEntry.from_fields(clip) for name, clip in fields.pop("clips").items()}
            manifest = cls(splits=splits, clips=clips, **fields)
            _check_splits(manifest)
            _check_clips(manifest)
        except InputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"no valid manifest ({type(error).__name__}: {error}); prepare the data set again"
            ) from error
        return manifest


def read_manifest(directory: Path | str) -> Manifest:
    """Returns the manifest of a data set whose files are all there.

    Raises:
      InputError: No such directory, no or no valid manifest, another schema version, or shards are missing.
    """
    directory = Path(directory)
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise InputError(f"data directory {directory} does not exist; {_PREPARE}")
    if not path.is_file():
        raise InputError(f"data directory {directory} has no {MANIFEST_NAME}: not a finished data set; {_PREPARE}")
    try:
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    missing = [
        file.relative_to(directory).as_posix()
        for split in manifest.splits.values()
        for kind in RECORD_TYPES
        for shard in split.shards(kind)
        if not (file := kind_directory(directory, kind) / shard.name).is_file()
    ]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{path}: {len(missing)} of its shards are missing: {shown}; copy them or prepare the data set again"
        )
    return manifest


def write_manifest(directory: Path | str, manifest: Manifest) -> None:
    """Writes the manifest of a data set, whole or not at all; refuses one that could not be read back."""
    text = manifest.to_json()
    Manifest.from_json(text)
    write_atomically(Path(directory) / MANIFEST_NAME, text)


def _listed(split: Mapping[str, Any], kind: Kind) -> Any:
    # Manifests older than the bridge to DECA know no renders.
    return split.get(kind, ()) if kind == "renders" else split[kind]


def _check_splits(manifest: Manifest) -> None:
    if not isinstance(manifest.image_size, int) or manifest.image_size < 1:
        raise InputError(f"image_size {manifest.image_size!r}: expected a positive integer")
    for name, split in manifest.splits.items():
        for kind in RECORD_TYPES:
            for number, shard in enumerate(split.shards(kind)):
                # Comparing the whole name also keeps a hostile manifest inside its directory.
                expected = shard_name(kind, name, number, len(split.shards(kind)))
                if shard.name != expected:
                    raise InputError(f"shard name {shard.name!r}: expected {expected!r}")
                if not isinstance(shard.records, int) or shard.records < 0:
                    raise InputError(f"shard {shard.name} with {shard.records!r} records: expected a count")
        counts = {kind: [shard.records for shard in split.shards(kind)] for kind in ("frames", "renders")}
        if split.renders and counts["renders"] != counts["frames"]:
            raise InputError(f"split {name!r}: its renders do not match its frames record by record")


def _check_clips(manifest: Manifest) -> None:
    spans: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for name, clip in manifest.clips.items():
        if clip.emotion not in (*EMOTIONS, UNLABELLED):
            raise InputError(f"clip {name!r}: emotion {clip.emotion!r}, expected one of {', '.join(EMOTIONS)}")
        if not 0 <= clip.shard < len(manifest.split(clip.split).frames):
            raise InputError(f"clip {name!r}: shard {clip.shard} of split {clip.split!r} does not exist")
        ends = [end for run in clip.frames for end in run]
        if any(b < a for a, b in clip.frames) or any(b <= a for a, b in zip(ends[1::2], ends[2::2], strict=False)):
            raise InputError(f"clip {name!r}: its frame runs are not in rising order")
        counts = [count for _, count in clip.flags]
        if counts and (min(counts) < 1 or sum(counts) != clip.frame_count):
            raise InputError(f"clip {name!r}: flags of {sum(counts)} frames for {clip.frame_count} frames")
        span = (clip.first_record, clip.first_record + clip.frame_count, name)
        spans.setdefault((clip.split, clip.shard), []).append(span)
    for split_name, split in manifest.splits.items():
        for number, shard in enumerate(split.frames):
            position = 0
            for first, end, name in sorted(spans.get((split_name, number), [])):
                if first != position:
                    raise InputError(f"clip {name!r} starts at record {first} of {shard.name}, expected {position}")
                position = end
            if position != shard.records:
                raise InputError(f"shard {shard.name} has {shard.records} records, its clips have {position}")


class FrameIndex:
    """Record numbers within one split of frames named by clip and position.

    Args:
      manifest: Data set.
      split: Its split.
    """

    def __init__(self, manifest: Manifest, split: str) -> None:
        shards = manifest.split(split).frames
        starts = np.cumsum([0, *(shard.records for shard in shards)])
        self.split = split
        self.clips = {name: clip for name, clip in manifest.clips.items() if clip.split == split}
        self._first = {name: int(starts[clip.shard]) + clip.first_record for name, clip in self.clips.items()}
        self._positions: dict[str, np.ndarray] = {}

    def positions(self, clip: str) -> Int64[np.ndarray, " n"]:
        """Returns the positions in the source video of a clip's kept frames, rising; none for an unknown clip."""
        if clip not in self.clips:
            return np.zeros(0, np.int64)
        if clip not in self._positions:
            self._positions[clip] = self.clips[clip].positions()
        return self._positions[clip]

    def all_records(self, clip: str) -> Int64[np.ndarray, " n"]:
        """Returns the record numbers of a clip's kept frames, in the order of `positions`."""
        return self._first.get(clip, 0) + np.arange(len(self.positions(clip)))

    def records(self, clip: str, frames: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the record number of each frame of a clip, -1 for a frame that was not kept."""
        positions = self.positions(clip)
        if not positions.size:
            return np.full(len(frames), -1)
        place = np.minimum(np.searchsorted(positions, frames), positions.size - 1)
        return np.where(positions[place] == frames, self._first[clip] + place, -1)

    def record(self, clip: str, frame: int) -> int:
        """Returns the record number of one frame.

        Raises:
          InputError: Unknown clip, or the frame was not kept.
        """
        if clip not in self.clips:
            raise InputError(f"split {self.split!r} has no clip {clip!r}")
        record = int(self.records(clip, np.asarray([frame]))[0])
        if record < 0:
            raise InputError(f"clip {clip!r} has no frame {frame}: it was dropped or never existed")
        return record


# Clips of one performance in two emotions, frame by frame: what a perfect manipulation of one must look like.


@dataclasses.dataclass(frozen=True)
class Twin:
    """A neutral clip, and the same words said by the same person in the same time with an emotion.

    Attributes:
      source: Id of the neutral clip.
      target: Id of the emotional one.
      speaker: Who speaks.
      emotion: Of the target.
      sentence: What is said.
    """

    source: str
    target: str
    speaker: str
    emotion: str
    sentence: str

    @property
    def folder(self) -> PurePosixPath:
        """Where the conditioning of the source with the target's expression is kept, within a folder of edits."""
        return PurePosixPath(self.speaker, self.emotion, self.sentence)


def find_twins(manifest: Manifest, split: str = "validation") -> tuple[Twin, ...]:
    """Returns the pairs of a split whose lists of frames are equal, by speaker, sentence and emotion.

    Only `asccl data synthesise actors` makes clips that are equal in speech, pose and blinks; of others, equal numbers
    of frames would be chance.

    Args:
      manifest: Data set.
      split: Its split.
    """
    clips = {name: clip for name, clip in manifest.clips.items() if clip.split == split}
    neutral = {
        (clip.speaker, clip.sentence, clip.frames): name for name, clip in clips.items() if clip.emotion == "neutral"
    }
    found = []
    for name, clip in sorted(clips.items(), key=lambda item: (item[1].speaker, item[1].sentence, item[1].emotion)):
        source = neutral.get((clip.speaker, clip.sentence, clip.frames))
        if source is not None and clip.emotion != "neutral":
            found.append(Twin(source, name, clip.speaker, clip.emotion, clip.sentence))
    return tuple(found)


# A few of many examples, the same ones every time.

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], limit: int | None) -> list[Item]:
    """Returns at most `limit` items at even distances, both ends among them; all of them without a limit.

    >>> evenly_spaced(range(10), 4)
    [0, 3, 6, 9]
    >>> evenly_spaced("abc", 8)
    ['a', 'b', 'c']
    """
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]
