"""The checkpoints and weights of a run, one line each: when written, how large, how good, and what stays."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import save

from asccl_jax.errors import InputError
from asccl_jax.train.checkpoints.checkpoint import abandoned_io_unheard, best_scored
from asccl_jax.train.checkpoints.checkpoint_folder import (
    STATE,
    Entry,
    Notes,
    list_entries,
    newest_step,
    read_entry,
    reading,
    scores,
)
from asccl_jax.weights import describe_weights

__all__ = [
    "CHECKPOINTS",
    "WEIGHTS",
    "Row",
    "SavedArray",
    "Source",
    "checkpoint_rows",
    "describe_arrays",
    "find_checkpoints",
    "find_source",
    "folder_bytes",
    "read_arrays",
    "readable_bytes",
    "safetensors_bytes",
    "table",
    "weights_rows",
    "written_at",
]

CHECKPOINTS = "checkpoints"
WEIGHTS = ("initial", "best", "last")
_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the list.

    Attributes:
      name: Name of the folder.
      kind: `Entry.kind` of a checkpoint; of weights, the kind of network.
      written: When it was written, in UTC.
      bytes: Size on disk.
      step: Updates done, where it is known.
      score: Held-out score, where it was scored then.
      marks: What is special about it.
      problem: What is wrong with it; empty where nothing is.
    """

    name: str
    kind: str
    written: datetime.datetime
    bytes: int
    step: int | None = None
    score: float | None = None
    marks: tuple[str, ...] = ()
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return {**dataclasses.asdict(self), "written": self.written.isoformat(timespec="seconds")}


def find_checkpoints(path: Path) -> Path:
    """Returns the folder of checkpoints of a run; a path to the folder itself will do.

    Raises:
      InputError: There is none.
    """
    if (path / CHECKPOINTS).is_dir():
        return path / CHECKPOINTS
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the --workdir of a run, or its {CHECKPOINTS}/")
    if path.name == CHECKPOINTS or any(entry.kind != "foreign" for entry in list_entries(path)):
        return path
    raise InputError(f"{path}: no {CHECKPOINTS}/ there; give the --workdir of a run, or its {CHECKPOINTS}/")


def checkpoint_rows(directory: Path) -> list[Row]:
    """Returns a line for everything in a folder of checkpoints.

    Args:
      directory: The folder.

    Raises:
      InputError: A file cannot be read.
    """
    entries = list_entries(directory)
    newest, best, rows = newest_step(entries), best_scored(scores(entries)), []
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):  # a running program tidies up
            rows.append(_row(entry, newest, best))
    return rows


def _row(entry: Entry, newest: int | None, best: int | None) -> Row:
    told = entry.notes
    marks: list[str] = [] if told else [entry.kind]
    if told is not None and entry.step is not None:
        every = told.config.get("keep_every") or 0
        marks += ["newest"] if entry.step == newest else []
        marks += ["best"] if entry.step == best else []
        marks += ["kept for good"] if every and entry.step % every == 0 else []
    return Row(
        name=entry.path.name,
        kind=entry.kind,
        written=written_at(entry.path),
        bytes=folder_bytes(entry.path),
        step=entry.step,
        score=told.score if told else None,
        marks=tuple(marks),
        problem=entry.problem,
    )


def weights_rows(workdir: Path) -> list[Row]:
    """Returns a line for each folder of weights in a run's folder."""
    from asccl_jax.weights import describe_weights

    found = [(name, described) for name in WEIGHTS if (described := describe_weights(workdir / name)) is not None]
    return [
        Row(name, described.kind, written_at(described.variables), folder_bytes(described.variables.parent))
        for name, described in found
    ]


def written_at(path: Path) -> datetime.datetime:
    """Returns when a checkpoint was finished; of anything else, when its folder last changed."""
    seconds = path.stat().st_mtime
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        seconds = json.loads((path / "_CHECKPOINT_METADATA").read_text())["commit_timestamp_nsecs"] / 1e9
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def folder_bytes(path: Path) -> int:
    """Returns the bytes of all files in a folder, or of a file."""
    total = 0
    for file in [path, *path.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # a running program tidies up
            total += file.stat().st_size if file.is_file() else 0
    return total


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Returns a table as text.

    Args:
      columns: Their heads.
      lines: Their entries.
      right: Numbers of the columns whose entries stand to the right.
    """
    lines = [tuple(columns), *map(tuple, lines)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    shown = (
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    return "\n".join(shown) + "\n"


def readable_bytes(count: int) -> str:
    """Returns a size for people.

    >>> readable_bytes(999), readable_bytes(12_345_678)
    ('999 B', '12.3 MB')
    """
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


# Arrays that Orbax wrote, described and read into memory, whatever devices they were on and whatever program runs.


class SavedArray(NamedTuple):
    """An array on disk.

    Attributes:
      name: Its path in the tree, joined by dots.
      shape: Its shape.
      dtype: Name of its type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.numbers * np.dtype(self.dtype).itemsize


def describe_arrays(folder: Path) -> list[SavedArray]:
    """Returns what arrays a folder holds, by name; a typed PRNG key is the integers it is stored as.

    Raises:
      DamagedError: A part is missing or cut short.
      InputError: The system refuses to read it.
    """
    with reading(folder):
        leaves = jax.tree_util.tree_leaves_with_path(_tree(folder), is_leaf=_is_array)
        return sorted(SavedArray(_name(path), tuple(leaf.shape), np.dtype(leaf.dtype).name) for path, leaf in leaves)


def read_arrays(folder: Path, parts: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Returns arrays by name, in memory.

    Args:
      folder: Where they are.
      parts: First parts of the names that are wanted; None takes all.

    Raises:
      DamagedError: A part is missing or cut short.
      InputError: The system refuses to read it.
    """
    with (
        abandoned_io_unheard(),
        reading(folder),
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer,
    ):
        wanted = {name: tree for name, tree in _tree(folder).items() if parts is None or name in parts}
        # As NumPy arrays, or they would be put on the devices that wrote them.
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted, is_leaf=_is_array)
        asked = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        found = checkpointer.restore(folder, args=asked)
    return {_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(found)}


def _tree(folder: Path) -> dict[str, Any]:
    found: Any = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    return dict(found)


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape")


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


# One checkpoint or one folder of weights: found by path, described, and written as safetensors.

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
        raise InputError(f"{entry.path} is {entry.kind} ({entry.problem}); `asccl weights ls` lists what there is")
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
