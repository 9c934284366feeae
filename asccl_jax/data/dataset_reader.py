"""Reading a data set back: its records by kind, and a check of every byte."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Int64

from asccl_jax.data.atomic import write_atomically
from asccl_jax.data.frame_shard import flag_runs
from asccl_jax.data.manifest import FrameIndex, Manifest, kind_directory, read_manifest
from asccl_jax.data.records import RecordSource, file_sha256
from asccl_jax.data.schema import RECORD_TYPES, ClipPairRecord, ComparisonRecord, FrameRecord, Kind, RenderRecord
from asccl_jax.errors import InputError

__all__ = [
    "describe_dataset",
    "open_records",
    "read_comparisons",
    "read_pairs",
    "read_render_flags",
    "verify_dataset",
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
