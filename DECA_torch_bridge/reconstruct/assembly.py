"""Finished clips into a data set of records: shards of frames and renders side by side, the manifest last."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asccl_jax.data.dataset import (
    ClipSource,
    RenderShard,
    ShardEntry,
    finish_dataset,
    read_pairs,
    write_frame_shard,
    write_render_shard,
)
from asccl_jax.data.manifest import ClipEntry, Manifest, Shard, kind_directory
from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import ClipPairRecord, FrameRecord, RenderRecord
from DECA_torch_bridge.reconstruct.inputs import InputClip
from DECA_torch_bridge.reconstruct.work import Step, Task, WorkFolder, digest

__all__ = ["ShardTask", "finish_records", "plan_shards"]


@dataclasses.dataclass(frozen=True)
class ShardTask(Task):
    """Writes a shard of frames and the shard of their renders.

    Attributes:
      output: Directory of the data set.
      split: Split of the shard.
      number: Its number in the split.
      count: Shards of the split.
      clips: File names of its clips in the work folder, in the order of their ids.
      keys: Keys of these clips.
    """

    output: Path
    split: str
    number: int
    count: int
    clips: tuple[str, ...]
    keys: tuple[str, ...]
    work: WorkFolder
    step: Step = "shards"

    @property
    def name(self) -> str:
        """Split and number."""
        return f"{self.split}-{self.number:05d}"

    @functools.cached_property
    def key(self) -> str:
        """See `Task`."""
        return digest(self.split, self.number, self.count, self.keys, "flags noted")

    def is_done(self) -> bool:
        """See `Task`; both files must be there, too."""
        status = self.work.status(self.step, self.name, self.key)
        if status is None:
            return False
        files = (
            self.output / status["entry"]["shard"]["name"],
            self._render_folder / status["renders"]["shard"]["name"],
        )
        return status["problem"] is not None or all(path.is_file() for path in files)

    @property
    def _render_folder(self) -> Path:
        return kind_directory(self.output, "renders")

    def compute(self) -> dict[str, Any]:
        """Writes both shards."""
        place = (self.output, self.split, self.number, self.count)
        entry = write_frame_shard(*place, (FrameRecord.decode(data) for data in self._source("frames")))
        renders = write_render_shard(*place, (RenderRecord.decode(data) for data in self._source("renders")))
        return {"entry": dataclasses.asdict(entry), "renders": dataclasses.asdict(renders)}

    def _source(self, kind: str) -> RecordSource:
        return RecordSource([self.work.file("clips", name, f".{kind}.tfrecord") for name in self.clips])

    def result(self) -> tuple[ShardEntry, RenderShard]:
        """Returns what the manifest is to say of both shards."""
        status = self.work.status(self.step, self.name, self.key)
        if status is None or status["problem"] is not None:
            reason = "was not written" if status is None else status["problem"]
            raise RuntimeError(f"shard {self.name}: {reason}; give the same command again")
        entry = status["entry"]
        clips = {name: ClipEntry.from_fields(clip) for name, clip in entry["clips"].items()}
        frames = ShardEntry(**{**entry, "shard": Shard(**entry["shard"]), "clips": clips})
        renders = status["renders"]
        flags = {clip: tuple((value, count) for value, count in runs) for clip, runs in renders["flags"].items()}
        return frames, RenderShard(Shard(**renders["shard"]), flags)


def plan_shards(
    items: Sequence[InputClip],
    statuses: Mapping[str, Mapping[str, Any]],
    *,
    output: Path,
    work: WorkFolder,
    shard_bytes: int,
) -> list[ShardTask]:
    """Returns the shards of all splits, filled one after the other with the clips in the order of their ids."""
    filled: dict[str, list[list[InputClip]]] = collections.defaultdict(lambda: [[]])
    sizes: dict[str, int] = collections.defaultdict(int)
    for item in sorted(items, key=lambda item: item.name):
        size = statuses[item.name]["record_bytes"]
        if filled[item.split][-1] and sizes[item.split] + size > shard_bytes:
            filled[item.split].append([])
            sizes[item.split] = 0
        filled[item.split][-1].append(item)
        sizes[item.split] += size
    return [
        ShardTask(
            output=output,
            split=split,
            number=number,
            count=len(shards),
            clips=tuple(item.clip.file_name for item in members),
            keys=tuple(statuses[item.name]["key"] for item in members),
            work=work,
        )
        for split, shards in sorted(filled.items())
        for number, members in enumerate(shards)
    ]


def finish_records(
    output: Path,
    tasks: Sequence[ShardTask],
    items: Sequence[InputClip],
    statuses: Mapping[str, Mapping[str, Any]],
    *,
    name: str,
    settings: Mapping[str, Any],
) -> Manifest:
    """Writes the manifest over finished shards; pairs of clips of an input data set are taken along."""
    results = [task.result() for task in tasks]
    renders: dict[str, list[RenderShard]] = collections.defaultdict(list)
    for entry, shard in results:
        renders[entry.split].append(shard)
    sources = {
        item.name: ClipSource(statuses[item.name]["fps"], "" if item.kind == "records" else item.clip.video.name)
        for item in items
    }
    return finish_dataset(
        output,
        name=name,
        shards=[entry for entry, _ in results],
        sources=sources,
        pairs=_pairs(items),
        renders=renders,
        settings=settings,
    )


def _pairs(items: Sequence[InputClip]) -> dict[str, list[ClipPairRecord]]:
    kept = {item.name for item in items}
    splits = {(item.clip.video, item.split) for item in items if item.kind == "records"}
    found: dict[str, list[ClipPairRecord]] = {}
    for directory, split in sorted(splits):
        pairs = [pair for pair in read_pairs(directory, split) if {pair.query_clip, pair.key_clip} <= kept]
        if pairs:
            found[split] = pairs
    return found
