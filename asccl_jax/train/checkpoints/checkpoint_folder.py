"""What lies in a folder of checkpoints, found out without changing anything there and without JAX."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from asccl_jax.buckets import AnyPath, remote_address
from asccl_jax.errors import InputError

__all__ = [
    "ITEMS",
    "STATE",
    "DamagedError",
    "Entry",
    "Notes",
    "list_entries",
    "newest_on_disk",
    "newest_step",
    "read_entry",
    "read_notes",
    "reading",
    "scores",
    "set_aside_name",
]

STATE = "state"
NOTES = ("config", "data", "progress")
ITEMS = (STATE, *NOTES)
"""Folders in a checkpoint: the arrays, and three files of JSON."""

Kind = Literal["whole", "partial", "damaged", "set aside", "foreign"]

_PARTIAL = ".orbax-checkpoint-tmp"
_SET_ASIDE = ".damaged"
_JSON_FILE = "metadata"
_DESCRIPTION = "_CHECKPOINT_METADATA"
_ARRAY_DESCRIPTION = "_METADATA"
_ARRAY_INDEX = "manifest.ocdbt"
# What Orbax puts beside the items.
_COMMITTED = "commit_success.txt"
_BESIDE = (_DESCRIPTION, _COMMITTED)


# What TensorStore says of a bucket that does not answer, or not to these credentials.
_UNREACHABLE = "UNAVAILABLE|UNAUTHENTICATED|PERMISSION_DENIED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED|CANCELLED"


class DamagedError(InputError):
    """A part of a checkpoint is missing or cut short; what the system refuses to read is another matter."""


@dataclasses.dataclass(frozen=True)
class Notes:
    """What a checkpoint says beside its arrays.

    Attributes:
      config: Config of the run.
      data: State of the input iterator.
      progress: What the loop noted: best score so far, score of this very state.
    """

    config: dict[str, Any]
    data: dict[str, Any]
    progress: dict[str, Any]

    @property
    def score(self) -> float | None:
        """Held-out score of this state, if it was scored."""
        return self.progress.get("score")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Something that lies in a folder of checkpoints.

    Attributes:
      path: Where.
      kind: "whole"; "partial", as a killed save leaves it under a name of its own; "damaged", a step of which a part
        is missing or cut short; "set aside", damaged and moved away from its name; "foreign", not from this program.
      step: Updates done, for what is named like a step; else None.
      problem: What is wrong with it; empty where nothing is.
      notes: What it says of itself, if it is whole.
    """

    path: AnyPath
    kind: Kind
    step: int | None = None
    problem: str = ""
    notes: Notes | None = None

    @property
    def blocks(self) -> bool:
        """Whether it stands under a name that a checkpoint may need."""
        return self.kind == "foreign" and self.step is not None


def list_entries(directory: AnyPath) -> list[Entry]:
    """Returns all that lies in a folder of checkpoints, steps first and in order.

    A truncated file of array values is not seen here: only reading it all would tell.

    Raises:
      InputError: A file cannot be read, for lack of a permission or because the disk fails.
    """
    if not directory.is_dir():
        return []
    entries = [entry for path in directory.iterdir() if (entry := read_entry(path)) is not None]
    return sorted(entries, key=lambda entry: (entry.step is None, entry.step or 0, entry.path.name))


def newest_on_disk(directory: AnyPath) -> int | None:
    """Returns the step of the newest whole checkpoint in a folder, whatever became of the run that wrote it."""
    return newest_step(list_entries(directory))


def newest_step(entries: Iterable[Entry]) -> int | None:
    """Returns the greatest step of whole checkpoints, or None where there are none."""
    return max((entry.step for entry in entries if entry.step is not None and entry.kind == "whole"), default=None)


def scores(entries: Iterable[Entry]) -> dict[int, float]:
    """Returns the held-out score of each whole checkpoint that has one, by step."""
    return {
        entry.step: entry.notes.score
        for entry in entries
        if entry.step is not None and entry.notes is not None and entry.notes.score is not None
    }


def read_entry(path: AnyPath) -> Entry | None:
    """Returns what lies at a path in a folder of checkpoints; None where nothing is, or no longer.

    Raises:
      InputError: A file cannot be read.
    """
    name = path.name
    step = int(name) if name.isdigit() and str(int(name)) == name else None
    try:
        if _PARTIAL in name:
            return Entry(path, "partial", problem="a save that did not end")
        if _SET_ASIDE in name and name.partition(".")[0].isdigit():
            return Entry(path, "set aside", problem="damaged, moved away from its name by a run that went on without")
        if step is None:
            return Entry(path, "foreign", problem="not a checkpoint of this program")
        if not path.is_dir():
            return Entry(path, "foreign", step, "a file, where checkpoints are folders")
        # A bucket knows no renaming of folders: there a save is under its final name from the beginning.
        if remote_address(path) and not (path / _COMMITTED).exists():
            return Entry(path, "partial", problem="a save that did not end")
        if stranger := _stranger(path):
            return Entry(path, "foreign", step, stranger)
        notes = _checked_notes(path)
        return Entry(path, "whole", step, notes=notes)
    except DamagedError as error:
        return Entry(path, "damaged", step, str(error).removeprefix(f"{path}/")) if path.exists() else None
    except FileNotFoundError:
        return None


def read_notes(folder: AnyPath) -> Notes:
    """Returns what a checkpoint says beside its arrays.

    Raises:
      DamagedError: A file is missing, or not the JSON that was written.
      InputError: A file cannot be read.
    """
    return Notes(**{name: _read_json(folder / name / _JSON_FILE) for name in NOTES})


@contextlib.contextmanager
def reading(folder: AnyPath) -> Iterator[None]:
    """Turns what Orbax and TensorStore say of a checkpoint they cannot read into one line.

    Raises:
      DamagedError: A part is missing or cut short.
      InputError: The system refuses to read it.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Around what TensorStore says of values Orbax raises a bare Exception. All other kinds are let through but
        # those that tell of files, an AttributeError too: Orbax takes the fields of its descriptions for granted.
        told = error.__cause__ if type(error) is Exception else error
        if not isinstance(told, (OSError, ValueError, KeyError, AttributeError)):
            raise
        reason = re.sub(r"\s*\[tensorstore_spec=.*", "", " ".join(str(told).split()))
        code = re.search(r"os_error_code='(\d+)'", str(told))
        number = told.errno if isinstance(told, OSError) else int(code[1]) if code else None
        unreachable = re.match(_UNREACHABLE, reason) or (type(told) is OSError and number is None)
        if remote_address(folder) and unreachable:
            raise InputError(f"{folder} cannot be read ({reason}): give the same command again") from error
        if number in (None, errno.ENOENT):
            raise DamagedError(f"{folder} is damaged ({reason})") from error
        raise InputError(f"{folder} cannot be read ({os.strerror(number)}): give the same command again") from error


def set_aside_name(folder: AnyPath) -> AnyPath:
    """Returns the name a damaged checkpoint is moved to, one that nothing has yet."""
    name, count = folder.with_name(f"{folder.name}{_SET_ASIDE}"), 1
    while name.exists():
        count += 1
        name = folder.with_name(f"{folder.name}{_SET_ASIDE}.{count}")
    return name


def _stranger(folder: AnyPath) -> str:
    """Says why a folder with the name of a step is not of this program; empty where it may be."""
    names = {path.name for path in folder.iterdir()}
    try:
        items = set(_read_json(folder / _DESCRIPTION)["item_handlers"])
    except (DamagedError, KeyError, TypeError):
        items = set()
    others = sorted(items - set(ITEMS)) or sorted(names - {*ITEMS, *_BESIDE})
    # A file that somebody put beside the four is none of our business.
    if not others or names >= set(ITEMS):
        return ""
    return f"it holds {', '.join(others[:3])}, where a checkpoint of this program holds {', '.join(ITEMS)}"


def _checked_notes(folder: AnyPath) -> Notes:
    """The notes of a checkpoint of which no part is seen to be missing."""
    missing = [name for name in ITEMS if not (folder / name).is_dir()]
    if missing:
        raise DamagedError(f"{folder}/{', '.join(missing)} missing")
    _read_json(folder / STATE / _ARRAY_DESCRIPTION)
    index = folder / STATE / _ARRAY_INDEX
    if not index.is_file() or not index.read_bytes():
        raise DamagedError(f"{index} missing or empty")
    return read_notes(folder)


def _read_json(file: AnyPath) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise DamagedError(f"{file} missing") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})") from error
    except ValueError as error:  # neither JSON nor even text
        raise DamagedError(f"{file} is cut short or overwritten ({error})") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{file} is not what was written there")
    return found
