"""One checkpoint or one folder of weights: found by path, described, and written as safetensors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from asccl_jax.errors import InputError
from asccl_jax.saved_weights import describe_weights
from asccl_jax.train.checkpoints.checkpoint_folder import STATE, Entry, Notes, list_entries, newest_step, read_entry
from asccl_jax.train.checkpoints.checkpoint_listing import WEIGHTS, find_checkpoints, folder_bytes, written_at
from asccl_jax.train.checkpoints.saved_arrays import SavedArray, read_arrays

__all__ = ["Source", "find_source", "safetensors_bytes"]

_TRAINED = ("params", "batch_stats")
_OPTIMIZER = ("opt_state",)


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint or a folder of weights.

    Attributes:
      path: The folder.
      arrays: Folder of its arrays.
      kind: Kind of network: a checkpoint's task, the kind that a folder of weights names.
      settings: What makes the network; None where a checkpoint has no folder of weights beside it that tells.
      step: Updates done; None for weights, which do not tell.
      notes: What the checkpoint says of itself; None for weights.
    """

    path: Path
    arrays: Path
    kind: str
    settings: dict[str, Any] | None
    step: int | None = None
    notes: Notes | None = None

    def describe(self) -> dict[str, Any]:
        """Returns all but the arrays, as JSON can hold it."""
        told: dict[str, Any] = {"path": str(self.path), "kind": self.kind}
        if self.notes is not None:
            progress = self.notes.progress
            told |= {"step": self.step, "score": self.notes.score}
            told["best"] = {"step": progress.get("best_step"), "score": progress.get("best_score")}
            told |= {"data": self.notes.data, "config": self.notes.config}
        else:
            told["settings"] = self.settings
        written = written_at(self.path).isoformat(timespec="seconds")
        return {**told, "written": written, "bytes": folder_bytes(self.path)}

    def groups(self, arrays: Iterable[SavedArray]) -> dict[str, dict[str, Any]]:
        """Returns numbers, bytes and types of each network, by the first names that tell it, and of all."""
        groups: dict[str, dict[str, Any]] = {}
        for array in arrays:
            parts = array.name.split(".")
            name = ".".join(parts[: 2 if parts[0] in _TRAINED else 1])
            for key in (name, "all"):
                group = groups.setdefault(key, {"numbers": 0, "bytes": 0, "dtypes": []})
                group["numbers"] += array.numbers
                group["bytes"] += array.bytes
                group["dtypes"] = sorted({*group["dtypes"], array.dtype})
        return {name: group for name, group in groups.items() if name != "all"} | {"all": groups.get("all", {})}


def find_source(path: Path, step: int | None = None) -> Source:
    """Returns the checkpoint or the weights that a path names; of a run the newest whole checkpoint.

    Args:
      path: A run's folder, a checkpoint of it, or a folder of weights.
      step: Which checkpoint of a run.

    Raises:
      InputError: Nothing there that this program wrote, or a checkpoint that is damaged.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the --workdir of a run, a checkpoint or weights of it")
    weights = describe_weights(path)
    entry = None if weights is not None else read_entry(path)
    if step is not None and (weights is not None or (entry is not None and entry.step is not None)):
        raise InputError(f"--step {step}: {path} is not a run with several checkpoints; leave --step out")
    if weights is not None:
        return Source(path, weights.variables.absolute(), weights.kind, weights.settings)
    if entry is None or entry.step is None:
        entry = _of_run(find_checkpoints(path), step)
    if entry.notes is None:
        raise InputError(f"{entry.path} is {entry.kind} ({entry.problem}); `asccl checkpoint ls` lists what there is")
    run = entry.path.absolute().parent.parent
    beside = (described for name in reversed(WEIGHTS) if (described := describe_weights(run / name)) is not None)
    like = next(beside, None)
    kind = str(entry.notes.config.get("task") or (like.kind if like else "unknown"))
    arrays = entry.path.absolute() / STATE  # Orbax wants absolute paths
    return Source(entry.path, arrays, kind, like.settings if like else None, entry.step, entry.notes)


def _of_run(directory: Path, step: int | None) -> Entry:
    entries = list_entries(directory)
    wanted = newest_step(entries) if step is None else step
    for entry in entries:
        if entry.step is not None and entry.step == wanted:
            return entry
    steps = ", ".join(str(entry.step) for entry in entries if entry.kind == "whole")
    if not steps:
        raise InputError(f"{directory}: no whole checkpoint there")
    raise InputError(f"--step {step}: no such checkpoint in {directory}; there are {steps}")


def safetensors_bytes(source: Source, *, optimizer: bool = False) -> tuple[bytes, int]:
    """Returns the weights as a safetensors file, and how many arrays it has.

    Arrays bear their path joined by dots. The header's metadata has "kind", "settings" and, of a checkpoint, "step" and
    "config", all as JSON but the kind and the step.

    Args:
      source: Whose weights.
      optimizer: The optimiser's state too.

    Raises:
      InputError: Weights have no optimiser's state, or a part of the arrays is missing.
    """
    if optimizer and source.notes is None:
        raise InputError(f"--optimizer: {source.path} holds weights alone; name a run or a checkpoint of it")
    parts = None if source.notes is None else (*_TRAINED, *(_OPTIMIZER if optimizer else ()))
    arrays = read_arrays(source.arrays, parts)
    metadata = {"kind": source.kind}
    if source.settings is not None:
        metadata["settings"] = json.dumps(source.settings)
    if source.notes is not None:
        metadata |= {"step": str(source.step), "config": json.dumps(source.notes.config)}
    return save(arrays, metadata), len(arrays)
