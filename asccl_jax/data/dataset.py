"""Reading a data set back: its records by kind, and a check of every byte."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Int64

from asccl_jax.data.frame_shard import (
    RenderShard,
    ShardEntry,
    flag_runs,
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
from asccl_jax.data.records import INDEX_SUFFIX, RecordSource, RecordWriter, file_sha256
from asccl_jax.data.schema import (
    COMPARISON_CONDITIONS,
    RECORD_TYPES,
    SCHEMA_VERSION,
    ClipPairRecord,
    ComparisonRecord,
    Feature,
    FrameRecord,
    Kind,
    Record,
    RenderRecord,
)
from asccl_jax.errors import InputError
from asccl_jax.work import PARTIAL_SUFFIX, remove_file, write_atomically

__all__ = [
    "ClipSource",
    "RenderShard",
    "ShardEntry",
    "begin_dataset",
    "describe_dataset",
    "extend_dataset",
    "finish_dataset",
    "open_records",
    "read_comparisons",
    "read_frame_shard",
    "read_pairs",
    "read_render_flags",
    "verify_dataset",
    "write_frame_shard",
    "write_render_shard",
    "write_tfds_metadata",
]

_FLAGS_NAME = "flags.json"
"""Beside the renders of a data set whose manifest does not tell their flags."""

_LOG = logging.getLogger(__name__)


def open_records(directory: Path | str, manifest: Manifest, split: str, kind: Kind) -> RecordSource:
    """Returns the records of one kind in one split.

    Raises:
      InputError: No such split, a shard is truncated, or holds another number of records than the manifest says.
    """
    shards = manifest.split(split).shards(kind)
    folder = kind_directory(Path(directory), kind)
    source = RecordSource([folder / shard.name for shard in shards])
    for path, shard, found in zip(source.paths, shards, np.diff(source.starts).tolist(), strict=True):
        if found != shard.records:
            raise InputError(
                f"{path} has {found} records, the manifest says {shard.records}; prepare the data set again"
            )
    return source


def read_pairs(directory: Path | str, split: str) -> list[ClipPairRecord]:
    """Returns the aligned clip pairs of one split."""
    return [ClipPairRecord.decode(data) for data in open_records(directory, read_manifest(directory), split, "pairs")]


def read_comparisons(directory: Path | str, split: str) -> list[ComparisonRecord]:
    """Returns the controlled comparisons of one split."""
    source = open_records(directory, read_manifest(directory), split, "comparisons")
    return [ComparisonRecord.decode(data) for data in source]


def read_render_flags(directory: Path | str, manifest: Manifest, split: str) -> dict[str, Int64[np.ndarray, " n"]]:
    """Returns the flags of the kept frames of every clip of a split that has renders, by the clip's id.

    The manifest tells them. One of before it did has all records read once, and what is found is kept in a file
    beside them, if it may be written.
    """
    clips = {name: clip for name, clip in manifest.clips.items() if clip.split == split}
    known = {name: flags for name, clip in clips.items() if (flags := clip.frame_flags()) is not None}
    if len(known) == len(clips):
        return known
    index = FrameIndex(manifest, split)
    found = _old_flags(Path(directory), manifest, split)
    return {name: found[index.all_records(name)] for name in clips}


def _old_flags(directory: Path, manifest: Manifest, split: str) -> Int64[np.ndarray, " n"]:
    """The flags of all records of a split whose manifest does not tell them."""
    path = kind_directory(directory, "renders") / f"{split}-{_FLAGS_NAME}"
    shards = [shard.sha256 for shard in manifest.split(split).renders]
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        flags = np.repeat(*np.array(kept["flags"], np.int64).T)
        if kept["shards"] == shards and len(flags) == manifest.split(split).records("renders"):
            return flags
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there yet, or of nobody's use: it is made of the records
    _LOG.warning("%s: reads the flags of all renders of split %r, as its manifest is an older one", directory, split)
    source = open_records(directory, manifest, split, "renders")
    flags = np.array([RenderRecord.decode_field(data, "flags") for data in source], np.int64)
    try:
        write_atomically(path, json.dumps({"shards": shards, "flags": flag_runs(flags.tolist())}))
    except OSError as error:
        _LOG.warning(
            "%s cannot be written (%s): every start reads all of them again; give the data set's own `asccl"
            " reconstruct` command again, or open it once where it may be written",
            path,
            error.strerror,
        )
    return flags


def verify_dataset(directory: Path | str) -> list[str]:
    """Returns what is wrong with a data set, a line each: checksums, records, images, clip table.

    Reads every byte; all that is wrong is found, one line a shard.

    Raises:
      InputError: There is no data set whose files are all there.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    problems = []
    for split in manifest.splits:
        for kind in RECORD_TYPES:
            try:
                _verify_shards(directory, manifest, split, kind)
            except InputError as error:
                problems.append(str(error))
    return problems


def _verify_shards(directory: Path, manifest: Manifest, split: str, kind: Kind) -> None:
    source = open_records(directory, manifest, split, kind)
    expected = _frames_by_table(manifest, split)
    flags = _flags_by_table(manifest, split)
    for number, data in enumerate(source):
        try:
            record = RECORD_TYPES[kind].decode(data)
            if isinstance(record, FrameRecord):
                _verify_frame(record, next(expected), manifest.image_size)
            elif isinstance(record, RenderRecord):
                _verify_render(record, next(expected), next(flags))
        except InputError as error:
            raise InputError(f"{source.describe(number)}: {error}") from error
    for path, shard in zip(source.paths, manifest.split(split).shards(kind), strict=True):
        if file_sha256(path) != shard.sha256:
            raise InputError(
                f"{path}: its SHA-256 is not the manifest's, though every record is sound: files of two runs"
            )


def _frames_by_table(manifest: Manifest, split: str) -> Iterator[tuple[str, int]]:
    for name in _clips_by_table(manifest, split):
        for position in manifest.clips[name].positions().tolist():
            yield name, position


def _flags_by_table(manifest: Manifest, split: str) -> Iterator[int | None]:
    """The flags of each render in the order of the records, None where the manifest does not tell them."""
    for name in _clips_by_table(manifest, split):
        clip = manifest.clips[name]
        flags = clip.frame_flags()
        yield from [None] * clip.frame_count if flags is None else flags.tolist()


def _clips_by_table(manifest: Manifest, split: str) -> list[str]:
    clips = [(clip.shard, clip.first_record, name) for name, clip in manifest.clips.items() if clip.split == split]
    return [name for _, _, name in sorted(clips)]


def _verify_frame(frame: FrameRecord, expected: tuple[str, int], image_size: int) -> None:
    if (frame.clip, frame.frame) != expected:
        raise InputError(f"frame {frame.frame} of {frame.clip!r}, the clip table says {expected[1]} of {expected[0]!r}")
    try:
        shape = simplejpeg.decode_jpeg(frame.image, "RGB").shape
    except ValueError as error:
        raise InputError(f"its image does not decode ({error})") from error
    if shape != (image_size, image_size, 3):
        raise InputError(f"its image has shape {shape}, expected {image_size} x {image_size} in colour")


def _verify_render(render: RenderRecord, expected: tuple[str, int], flags: int | None) -> None:
    if (render.clip, render.frame) != expected:
        raise InputError(
            f"render {render.frame} of {render.clip!r}, the clip table says {expected[1]} of {expected[0]!r}"
        )
    if flags not in (None, render.flags):
        raise InputError(
            f"render {render.frame} of {render.clip!r} has flags {render.flags}, the clip table says {flags}"
        )
    for name, feature in render.features().items():
        content = getattr(render, name)
        if feature.kind == "png" and content:
            size = tuple(int.from_bytes(content[start : start + 4], "big") for start in (20, 16))
            if not content.startswith(b"\x89PNG\r\n\x1a\n") or size != feature.shape[:2]:
                raise InputError(f"its {name!r} is no PNG file of {feature.shape[0]} x {feature.shape[1]} pixels")


def describe_dataset(directory: Path | str) -> str:
    """Returns a table of what a data set holds, a line a split."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    header = ("split", "speakers", "clips", "frames", "clip pairs", "aligned frames", "comparisons", "renders", "MB")
    rows = []
    for name, split in sorted(manifest.splits.items()):
        paths = [kind_directory(directory, kind) / shard.name for kind in RECORD_TYPES for shard in split.shards(kind)]
        pairs = read_pairs(directory, name)
        counts = (
            len(manifest.speakers(name)),
            sum(clip.split == name for clip in manifest.clips.values()),
            split.records("frames"),
            len(pairs),
            sum(len(pair.query_frame) for pair in pairs),
            split.records("comparisons"),
            split.records("renders"),
        )
        rows.append(
            (name, *(f"{count:,}" for count in counts), f"{sum(path.stat().st_size for path in paths) / 1e6:.1f}")
        )
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (header, *rows)
    )
    return f"{manifest.name}: {manifest.image_size} x {manifest.image_size} pixels\n" + "\n".join(lines) + "\n"


# TFDS metadata beside the shards: `tfds.builder_from_directory(DIR)` then reads them where TensorFlow is installed.
#
# Two files of plain JSON in the format TFDS has kept since version 4.3; TFDS itself is not needed to write them.

_FEATURES = "tensorflow_datasets.core.features"
_DESCRIPTIONS: Mapping[Kind, str] = {
    "frames": "Cropped faces of people speaking in seven emotions.",
    "renders": "Code dicts of the frames, and pictures of the reconstructed head in the crop and aligned.",
    "pairs": "Pairs of clips of one sentence in two emotions, aligned frame by frame.",
    "comparisons": "Pairs of frames that differ in a known way, for evaluation.",
}


def write_tfds_metadata(
    directory: Path,
    kind: Kind,
    record: type[Record],
    image_size: int,
    splits: Mapping[str, Sequence[Shard]],
    *,
    absent: Collection[str] = (),
) -> None:
    """Writes `features.json` and `dataset_info.json` for the shards of one kind.

    Args:
      directory: The data set's directory.
      kind: Which shards.
      record: What they hold.
      image_size: Side in pixels of the images.
      splits: Shards by split; all must be on the disk.
      absent: Fields that are empty in every record; TFDS is not told of them.
    """
    folder = kind_directory(directory, kind)
    features = {
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                name: _feature(feature, image_size) for name, feature in record.features().items() if name not in absent
            }
        },
    }
    info = {
        "description": _DESCRIPTIONS[kind],
        "fileFormat": "tfrecord",
        "moduleName": "asccl_jax.data",
        "name": f"asccl_{kind}",
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": name,
                "numBytes": str(sum((folder / shard.name).stat().st_size for shard in shards)),
                "shardLengths": [str(shard.records) for shard in shards],
            }
            for name, shards in sorted(splits.items())
        ],
        "version": f"{SCHEMA_VERSION}.0.0",
    }
    for name, content in (("features.json", features), ("dataset_info.json", info)):
        write_atomically(folder / name, json.dumps(content, indent=4, sort_keys=True) + "\n")


def _feature(feature: Feature, image_size: int) -> dict[str, Any]:
    if feature.kind in ("image", "png"):
        shape = {"dimensions": [str(size) for size in feature.shape or (image_size, image_size, 3)]}
        encoding = "jpeg" if feature.kind == "image" else "png"
        content = {"shape": shape, "dtype": "uint8", "encodingFormat": encoding}
        return {"pythonClassName": f"{_FEATURES}.image_feature.Image", "image": content}
    if feature.kind == "text":
        return {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}
    dtype = {"float": "float32", "int": "int64"}[feature.kind]
    # TFDS writes an axis of unknown length as -1.
    dimensions = {"dimensions": ["-1" if size is None else str(size) for size in feature.shape]}
    if not feature.shape:
        tensor = {"shape": {}, "dtype": dtype, "encoding": "none"}
        return {"pythonClassName": f"{_FEATURES}.scalar.Scalar", "tensor": tensor}
    tensor = {"shape": dimensions, "dtype": dtype, "encoding": "none"}
    return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": tensor}


# Writing a data set: frame shards in any order and by any number of processes, the manifest last.
#
# A preparation calls `begin_dataset` once, `write_frame_shard` once a shard (on any machine that sees the directory),
# and `finish_dataset` once with what those calls returned. Without a manifest a directory is not a data set, so a run
# that is killed leaves nothing that training would read.


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
