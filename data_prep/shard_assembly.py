"""Prepared clips into shards: the same bytes however many workers there were and however often a run was resumed."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from asccl_jax.data.atomic import write_atomically
from asccl_jax.data.dataset_writer import ShardEntry, write_frame_shard
from asccl_jax.data.manifest import ClipEntry, Shard
from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import FrameRecord
from data_prep.clip_records import ClipStatus, WorkFolder
from data_prep.clips import Clip

__all__ = ["ShardTask", "assemble_shard", "plan_shards"]


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be written.

    Attributes:
      output: Directory of the data set.
      work: Where the prepared clips lie.
      split: Split of the shard.
      number: Its number in the split.
      count: Shards of the split.
      clips: Its clips, in the order of their ids.
      keys: Key of each clip's status: with the sentences, all that the shard depends on.
    """

    output: Path
    work: WorkFolder
    split: str
    number: int
    count: int
    clips: tuple[Clip, ...]
    keys: tuple[str, ...]

    @property
    def result_path(self) -> Path:
        """Where the shard's description lies once it is written."""
        return self.work.path / "shards" / f"{self.split}-{self.number:05d}.json"

    @property
    def key(self) -> str:
        """Digest of all that the shard depends on."""
        parts = [self.split, self.number, self.count, *self.keys, *(clip.sentence for clip in self.clips)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def result(self) -> ShardEntry | None:
        """Returns the shard's description if it has been written as this task wants it."""
        try:
            fields = json.loads(self.result_path.read_text())
        except (OSError, ValueError):
            return None
        if fields["key"] != self.key or not (self.output / fields["entry"]["shard"]["name"]).is_file():
            return None
        entry = fields["entry"]
        clips = {name: ClipEntry.from_fields(clip) for name, clip in entry["clips"].items()}
        return ShardEntry(**{**entry, "shard": Shard(**entry["shard"]), "clips": clips})


def plan_shards(
    clips: Sequence[Clip],
    statuses: Mapping[str, ClipStatus],
    splits: Mapping[str, str],
    *,
    output: Path,
    work: WorkFolder,
    shard_bytes: int,
) -> list[ShardTask]:
    """Returns the shards of all splits, filled one after the other with the clips in the order of their ids."""
    filled: dict[str, list[list[Clip]]] = collections.defaultdict(lambda: [[]])
    sizes: dict[str, int] = collections.defaultdict(int)
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        split, size = splits[clip.clip_id], statuses[clip.clip_id].record_bytes
        if filled[split][-1] and sizes[split] + size > shard_bytes:
            filled[split].append([])
            sizes[split] = 0
        filled[split][-1].append(clip)
        sizes[split] += size
    return [
        ShardTask(
            output=output,
            work=work,
            split=split,
            number=number,
            count=len(shards),
            clips=tuple(members),
            keys=tuple(statuses[clip.clip_id].key for clip in members),
        )
        for split, shards in sorted(filled.items())
        for number, members in enumerate(shards)
    ]


def assemble_shard(task: ShardTask) -> None:
    """Writes one shard and its description, unless that is done."""
    if task.result() is not None:
        return
    entry = write_frame_shard(task.output, task.split, task.number, task.count, _frames(task))
    description = {"key": task.key, "entry": dataclasses.asdict(entry)}
    write_atomically(task.result_path, json.dumps(description))


def _frames(task: ShardTask) -> Iterator[FrameRecord]:
    for clip in task.clips:
        for data in RecordSource([task.work.records(clip)]):
            # Sentences may have been told apart, by ear or by a list of pairs, after the clip was prepared.
            yield dataclasses.replace(FrameRecord.decode(data), sentence=clip.sentence)
