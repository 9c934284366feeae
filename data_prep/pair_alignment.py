"""One pair of clips from their prepared sound to an aligned path, kept in the work folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from asccl_jax.data.atomic import write_atomically
from asccl_jax.file_names import name_hash
from data_prep.alignment import Alignment, AlignmentSettings, UnalignableError, align_speech
from data_prep.clip_records import WorkFolder
from data_prep.clips import Clip

__all__ = ["PairTask", "align_clips", "align_pair"]


@dataclasses.dataclass(frozen=True)
class PairTask:
    """Two clips to be aligned.

    Attributes:
      work: Where the prepared clips lie.
      query: The neutral clip.
      key: The clip in another emotion.
      inputs: Keys of the two clips' statuses: with the settings, all that the path depends on.
      settings: What a path may do.
    """

    work: WorkFolder
    query: Clip
    key: Clip
    inputs: tuple[str, str]
    settings: AlignmentSettings

    @property
    def result_path(self) -> Path:
        """Where the path lies once it is found."""
        names = f"{self.query.file_name}--{self.key.file_name}"
        return self.work.path / "pairs" / f"{name_hash(names)[:32]}.json"

    @property
    def digest(self) -> str:
        """Digest of all that the path depends on."""
        parts = [*self.inputs, dataclasses.asdict(self.settings)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def result(self) -> Alignment | str | None:
        """Returns the path, or why there is none, or None before `align_pair`."""
        try:
            fields = json.loads(self.result_path.read_text())
        except (OSError, ValueError):
            return None
        if fields["digest"] != self.digest:
            return None
        if fields["problem"]:
            return str(fields["problem"])
        query, key = (np.asarray(fields[name], np.int64) for name in ("query", "key"))
        return Alignment(query=query, key=key, cost=fields["cost"])


def align_clips(work: WorkFolder, query: Clip, key: Clip, settings: AlignmentSettings) -> Alignment:
    """Returns the aligned frames of two prepared clips; raises `UnalignableError` where there are none."""
    first, second = work.speech(query), work.speech(key)
    path = align_speech(first.speech, second.speech, settings)
    return Alignment(query=first.frames[path.query], key=second.frames[path.key], cost=path.cost)


def align_pair(task: PairTask) -> None:
    """Aligns one pair and writes the path, unless that is done."""
    if task.result() is not None:
        return
    fields: dict[str, object] = {"digest": task.digest, "problem": None}
    try:
        path = align_clips(task.work, task.query, task.key, task.settings)
        fields |= {"query": path.query.tolist(), "key": path.key.tolist(), "cost": round(path.cost, 6)}
    except UnalignableError as error:
        fields["problem"] = str(error)
    write_atomically(task.result_path, json.dumps(fields))
