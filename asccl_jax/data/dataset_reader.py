"""Reading a data set back: its records by kind, and a check of every byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg

from asccl_jax.data.manifest import Manifest, kind_directory, read_manifest
from asccl_jax.data.records import RecordSource, file_sha256
from asccl_jax.data.schema import RECORD_TYPES, ClipPairRecord, ComparisonRecord, FrameRecord, Kind, RenderRecord
from asccl_jax.errors import InputError

__all__ = ["describe_dataset", "open_records", "read_comparisons", "read_pairs", "verify_dataset"]


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
    for number, data in enumerate(source):
        try:
            record = RECORD_TYPES[kind].decode(data)
            if isinstance(record, FrameRecord):
                _verify_frame(record, next(expected), manifest.image_size)
            elif isinstance(record, RenderRecord):
                _verify_render(record, next(expected))
        except InputError as error:
            raise InputError(f"{source.describe(number)}: {error}") from error
    for path, shard in zip(source.paths, manifest.split(split).shards(kind), strict=True):
        if file_sha256(path) != shard.sha256:
            raise InputError(
                f"{path}: its SHA-256 is not the manifest's, though every record is sound: files of two runs"
            )


def _frames_by_table(manifest: Manifest, split: str) -> Iterator[tuple[str, int]]:
    clips = [(clip.shard, clip.first_record, name) for name, clip in manifest.clips.items() if clip.split == split]
    for _, _, name in sorted(clips):
        for position in manifest.clips[name].positions().tolist():
            yield name, position


def _verify_frame(frame: FrameRecord, expected: tuple[str, int], image_size: int) -> None:
    if (frame.clip, frame.frame) != expected:
        raise InputError(f"frame {frame.frame} of {frame.clip!r}, the clip table says {expected[1]} of {expected[0]!r}")
    try:
        shape = simplejpeg.decode_jpeg(frame.image, "RGB").shape
    except ValueError as error:
        raise InputError(f"its image does not decode ({error})") from error
    if shape != (image_size, image_size, 3):
        raise InputError(f"its image has shape {shape}, expected {image_size} x {image_size} in colour")


def _verify_render(render: RenderRecord, expected: tuple[str, int]) -> None:
    if (render.clip, render.frame) != expected:
        raise InputError(
            f"render {render.frame} of {render.clip!r}, the clip table says {expected[1]} of {expected[0]!r}"
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
