"""The checkpoints and weights of a run, one line each: when written, how large, how good, and what stays."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from asccl_jax.errors import InputError
from asccl_jax.train.checkpoints.checkpoint_folder import Entry, list_entries, newest_step, scores
from asccl_jax.train.checkpoints.retention import best_scored

__all__ = [
    "CHECKPOINTS",
    "WEIGHTS",
    "Row",
    "checkpoint_rows",
    "find_checkpoints",
    "folder_bytes",
    "readable_bytes",
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
    from asccl_jax.saved_weights import describe_weights

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
