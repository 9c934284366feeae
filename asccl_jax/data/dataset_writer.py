"""Writing a data set: frame shards in any order and by any number of processes, the manifest last.

A preparation calls `begin_dataset` once, `write_frame_shard` once a shard (on any machine that sees the directory), and
`finish_dataset` once with what those calls returned. Without a manifest a directory is not a data set, so a run that
is killed leaves nothing that training would read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asccl_jax.data.atomic import PARTIAL_SUFFIX, remove_file
from asccl_jax.data.frame_shard import (
    RenderShard,
    ShardEntry,
    read_frame_shard,
    write_frame_shard,
    write_render_shard,
)
from asccl_jax.data.manifest import (
    MANIFEST_NAME,
    ClipEntry,
    FrameIndex,
    Manifest,
    Shard,
    Split,
    kind_directory,
    read_manifest,
    shard_name,
    write_manifest,
)
from asccl_jax.data.records import INDEX_SUFFIX, RecordSource, RecordWriter
from asccl_jax.data.schema import (
    COMPARISON_CONDITIONS,
    RECORD_TYPES,
    ClipPairRecord,
    ComparisonRecord,
    FrameRecord,
    Kind,
    Record,
    RenderRecord,
)
from asccl_jax.data.tfds_metadata import write_tfds_metadata
from asccl_jax.errors import InputError

__all__ = [
    "ClipSource",
    "RenderShard",
    "ShardEntry",
    "begin_dataset",
    "extend_dataset",
    "finish_dataset",
    "read_frame_shard",
    "write_frame_shard",
    "write_render_shard",
]


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """Where a clip's frames came from: the frame rate of its video, and the video as the person named it."""

    fps: float = 0.0
    source: str = ""


def begin_dataset(directory: Path | str) -> Path:
    """Makes the directory ready for shards, and takes an older data set in it out of use until `finish_dataset`."""
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"output {directory} is a file, expected a directory")
    directory.mkdir(parents=True, exist_ok=True)
    remove_file(directory / MANIFEST_NAME)
    return directory


def finish_dataset(
    directory: Path | str,
    *,
    name: str,
    shards: Iterable[ShardEntry],
    sources: Mapping[str, ClipSource] | None = None,
    pairs: Mapping[str, Iterable[ClipPairRecord]] | None = None,
    comparisons: Mapping[str, Iterable[ComparisonRecord]] | None = None,
    renders: Mapping[str, Sequence[RenderShard]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Manifest:
    """Writes all that follows from the frame shards, the manifest last.

    Args:
      directory: The data set's directory, which holds the shards.
      name: What to call the data set.
      shards: Every frame shard, in any order.
      sources: Frame rate and source of each clip by its id.
      pairs: Aligned clip pairs by split.
      comparisons: Controlled comparisons by split.
      renders: What `write_render_shard` returned, by split, in order; they lie in the directory already.
      settings: How the data was prepared; anything JSON can hold.

    Returns:
      The manifest.

    Raises:
      InputError: A shard is missing, shards disagree, there are no frames, or a pair names what is not there.
    """
    directory = Path(directory)
    entries = sorted(shards, key=lambda entry: (entry.split, entry.number))
    sizes = {entry.image_size for entry in entries if entry.image_size is not None}
    if not sizes:
        raise InputError(f"no frames for data set {name!r}: every clip was dropped; see the preparation's report")
    if len(sizes) > 1:
        raise InputError(f"data set {name!r} has images of {len(sizes)} sizes, {sorted(sizes)}: expected one")
    clips: dict[str, ClipEntry] = {}
    for entry in entries:
        if twice := sorted(clips.keys() & entry.clips.keys()):
            raise InputError(f"clip {twice[0]!r} lies in two shards, the second is {entry.shard.name}")
        clips.update(entry.clips)
    for clip, source in (sources or {}).items():
        if clip in clips:
            clips[clip] = dataclasses.replace(clips[clip], fps=float(source.fps), source=source.source)
    drawn = renders or {}
    for clip, flags in (
        (clip, flags) for found in drawn.values() for one in found for clip, flags in one.flags.items()
    ):
        if clip in clips:
            clips[clip] = dataclasses.replace(clips[clip], flags=flags)
    splits = {
        split: Split(frames=_split_shards(entries, split), renders=tuple(one.shard for one in drawn.get(split, ())))
        for split in sorted({entry.split for entry in entries})
    }
    manifest = Manifest(name=name, image_size=sizes.pop(), splits=splits, clips=clips, settings=dict(settings or {}))
    return _complete(directory, manifest, pairs or {}, comparisons or {})


def extend_dataset(
    directory: Path | str,
    split: str,
    frames: Iterable[FrameRecord],
    comparisons: Iterable[ComparisonRecord],
    *,
    sources: Mapping[str, ClipSource] | None = None,
) -> Manifest:
    """Adds a split of frames and comparisons to a finished data set, in place of an earlier one of that name.

    Args:
      directory: The data set's directory.
      split: Name of the new split, such as "comparisons".
      frames: Its frames, ordered as for `write_frame_shard`.
      comparisons: Comparisons of those frames.
      sources: Frame rate and source of each clip by its id.

    Returns:
      The new manifest.

    Raises:
      InputError: The split holds training pairs, or frames and comparisons do not fit each other or the data set.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    if split in manifest.splits and manifest.splits[split].pairs:
        raise InputError(f"split {split!r} of {directory} holds clip pairs and cannot be replaced; name another split")
    kept = {name: clip for name, clip in manifest.clips.items() if clip.split != split}
    splits = {name: shards for name, shards in manifest.splits.items() if name != split}
    manifest = dataclasses.replace(manifest, splits=splits, clips=kept)
    # Without its old split the manifest stays true whatever happens to the files that are replaced now.
    write_manifest(directory, manifest)
    entry = write_frame_shard(directory, split, 0, 1, frames)
    if entry.image_size not in (None, manifest.image_size):
        raise InputError(f"new frames are {entry.image_size} pixels wide, those of {directory} {manifest.image_size}")
    if twice := sorted(kept.keys() & entry.clips.keys()):
        raise InputError(f"clip {twice[0]!r} is already in split {kept[twice[0]].split!r} of {directory}")
    added = {
        name: dataclasses.replace(clip, **dataclasses.asdict((sources or {}).get(name, ClipSource())))
        for name, clip in entry.clips.items()
    }
    manifest = dataclasses.replace(
        manifest, splits={**splits, split: Split(frames=(entry.shard,))}, clips={**kept, **added}
    )
    return _complete(directory, manifest, {}, {split: comparisons})


def _split_shards(entries: Sequence[ShardEntry], split: str) -> tuple[Shard, ...]:
    found = [entry for entry in entries if entry.split == split]
    if [entry.number for entry in found] != list(range(found[0].count)) or len({entry.count for entry in found}) > 1:
        numbers = ", ".join(f"{entry.number} of {entry.count}" for entry in found)
        raise InputError(f"split {split!r} has frame shards {numbers}: expected each of them once")
    return tuple(entry.shard for entry in found)


def _complete(
    directory: Path,
    manifest: Manifest,
    pairs: Mapping[str, Iterable[ClipPairRecord]],
    comparisons: Mapping[str, Iterable[ComparisonRecord]],
) -> Manifest:
    """Writes the other records, the TFDS metadata and the manifest."""
    splits = dict(manifest.splits)
    for split, clip_pairs in pairs.items():
        index = FrameIndex(manifest, split)
        checked_pairs = (_checked_pair(pair, index) for pair in clip_pairs)
        splits[split] = dataclasses.replace(splits[split], pairs=_write_shard(directory, "pairs", split, checked_pairs))
    for split, compared in comparisons.items():
        index = FrameIndex(manifest, split)
        checked = (_checked_comparison(comparison, index) for comparison in compared)
        shards = _write_shard(directory, "comparisons", split, checked)
        splits[split] = dataclasses.replace(splits[split], comparisons=shards)
    manifest = dataclasses.replace(manifest, splits=splits)
    for kind, record in RECORD_TYPES.items():
        listed = {name: split.shards(kind) for name, split in splits.items() if split.shards(kind)}
        if listed:
            absent = _absent_pictures(directory, listed) if kind == "renders" else frozenset()
            write_tfds_metadata(directory, kind, record, manifest.image_size, listed, absent=absent)
        _remove_unlisted(
            kind_directory(directory, kind), {shard.name for shards in listed.values() for shard in shards}
        )
    write_manifest(directory, manifest)
    return manifest


def _absent_pictures(directory: Path, listed: Mapping[str, Sequence[Shard]]) -> frozenset[str]:
    """The pictures that no render has; the first one tells."""
    paths = [kind_directory(directory, "renders") / shard.name for shards in listed.values() for shard in shards]
    source = RecordSource(paths)
    return RenderRecord.decode(source[0]).absent() if len(source) else frozenset()


def _write_shard(directory: Path, kind: Kind, split: str, records: Iterable[Record]) -> tuple[Shard, ...]:
    folder = kind_directory(directory, kind)
    folder.mkdir(exist_ok=True)
    name = shard_name(kind, split, 0, 1)
    with RecordWriter(folder / name) as writer:
        for record in records:
            writer.write(record.encode())
    return (Shard(name, writer.records, writer.sha256),)


def _checked_pair(pair: ClipPairRecord, index: FrameIndex) -> ClipPairRecord:
    named = f"clip pair {pair.query_clip!r}, {pair.key_clip!r}"
    for clip, emotion in ((pair.query_clip, pair.query_emotion), (pair.key_clip, pair.key_emotion)):
        if clip not in index.clips:
            raise InputError(f"{named}: {clip!r} is not in split {index.split!r}")
        entry = index.clips[clip]
        if (entry.speaker, entry.sentence, entry.emotion) != (pair.speaker, pair.sentence, emotion):
            raise InputError(f"{named}: speaker, sentence or emotion differ from those of {clip!r}")
    if len(pair.query_frame) != len(pair.key_frame):
        raise InputError(f"{named}: {len(pair.query_frame)} query frames for {len(pair.key_frame)} key frames")
    if np.any(np.diff(pair.query_frame) < 0) or np.any(np.diff(pair.key_frame) < 0):
        raise InputError(f"{named}: the path goes back in time")
    return pair


def _checked_comparison(comparison: ComparisonRecord, index: FrameIndex) -> ComparisonRecord:
    if comparison.condition not in COMPARISON_CONDITIONS:
        expected = ", ".join(COMPARISON_CONDITIONS)
        raise InputError(f"comparison condition {comparison.condition!r}: expected one of {expected}")
    index.record(comparison.query_clip, comparison.query_frame)
    index.record(comparison.key_clip, comparison.key_frame)
    return comparison


def _remove_unlisted(folder: Path, names: set[str]) -> None:
    """Removes shards of an earlier preparation and what a killed process left."""
    if not folder.is_dir():
        return
    for path in [*folder.glob("asccl_*.tfrecord-*-of-*"), *folder.glob(f".*{PARTIAL_SUFFIX}")]:
        if path.name.removesuffix(INDEX_SUFFIX) not in names:
            path.unlink()
