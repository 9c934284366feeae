"""The work folder: what each task has left there, under which key, so that an interrupted run goes on where it stopped.

A task writes its results first and its status, a JSON file that bears a digest of all the results depend on, last. A
task whose status bears the key that it would have now is done.
"""

from __future__ import annotations

import abc
import contextlib
import contextvars
import dataclasses
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from threadpoolctl import threadpool_limits

from asccl_jax.errors import InputError
from asccl_jax.progress import ProgressBar
from asccl_jax.work import write_atomically
from data_prep.media.decode import BrokenMediaError

__all__ = [
    "Step",
    "Task",
    "WorkFolder",
    "available_cores",
    "counted",
    "counting_frames",
    "digest",
    "one_thread",
]

# Cores, and one thread for all libraries: what is shared out among threads is rounded by how many there are.


def available_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Gives the block's linear algebra one thread, so that results are the same whatever the number of cores.

    Several cores are used by several processes. Reaches the libraries that are loaded by now: what loads PyTorch inside
    a block computes in a block of its own.
    """
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)


Step = Literal["tracks", "speakers", "clips", "shards"]

RECONSTRUCTION_VERSION = 3
"""Raised when equal inputs and settings give other results, so that old work is not taken up."""

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WorkFolder:
    """Where the intermediate files of a run lie; any number of processes may write to it."""

    path: Path

    def make(self) -> None:
        """Makes the folders of all steps."""
        for step in ("tracks", "speakers", "clips", "shards"):
            (self.path / step).mkdir(parents=True, exist_ok=True)

    def file(self, step: Step, name: str, suffix: str) -> Path:
        """Returns where a task's file lies."""
        return self.path / step / f"{name}{suffix}"

    def status(self, step: Step, name: str, key: str | None = None) -> dict[str, Any] | None:
        """Returns a task's status if it is there (and, where a key is given, of that key)."""
        try:
            status = json.loads(self.file(step, name, ".json").read_text())
            return status if key in (None, status["key"]) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_status(self, step: Step, name: str, status: dict[str, Any]) -> None:
        """Writes a task's status."""
        write_atomically(self.file(step, name, ".json"), json.dumps(status, indent=1, sort_keys=True))


class Task(abc.ABC):
    """Something to do once, in any process; a dataclass that can be pickled.

    Attributes:
      step: Which step it is of.
      name: Harmless file name, unlike that of any other task of the step.
      work: Where it works.
    """

    step: Step
    work: WorkFolder

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """See the class."""

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """Digest of all that the results depend on."""

    @abc.abstractmethod
    def compute(self) -> dict[str, Any]:
        """Does it and returns what the status is to say.

        Raises:
          BrokenMediaError: What it works on cannot be used; the message is the reason.
        """

    def is_done(self) -> bool:
        """Whether the status of this very task is there."""
        return self.work.status(self.step, self.name, self.key) is not None

    def give_up(self, problem: str) -> None:
        """Writes the status of a task that cannot be done."""
        self.work.write_status(self.step, self.name, {"key": self.key, "problem": problem})

    @property
    def mark(self) -> Path:
        """The file that is there while the task is under way, and stays if its process dies."""
        return self.work.file(self.step, self.name, ".started")

    def run(self) -> None:
        """Does it unless it is done. What is wrong with its input ends in the status; a full disk raises."""
        if self.is_done():
            return
        self.mark.touch()
        with one_thread():
            _attempt(self, self.compute)
        self.mark.unlink(missing_ok=True)


def _attempt(task: Task, compute: Callable[[], dict[str, Any]]) -> None:
    try:
        status = compute()
    except (BrokenMediaError, InputError) as error:
        task.give_up(str(error))
    except OSError:
        raise
    except Exception as error:
        # The boundary at which a clip is given up: one odd file must not cost a day's run. The report names it.
        _LOG.exception("%s %s", task.step, task.name)
        task.give_up(f"unexpected {type(error).__name__}: {error}")
    else:
        task.work.write_status(task.step, task.name, {"key": task.key, "problem": None, **status})


def digest(*parts: Any) -> str:
    """Returns a digest of anything JSON can hold, paths as text."""
    text = json.dumps([RECONSTRUCTION_VERSION, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


# A progress bar of the frames of the task under way: a single long clip is not done for half an hour.

Item = TypeVar("Item")

_SHOWN = contextvars.ContextVar("shown", default=False)


@contextlib.contextmanager
def counting_frames(shown: bool) -> Iterator[None]:
    """Lets `counted` show a bar in the block, on a terminal."""
    before = _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.reset(before)


def counted(frames: Iterable[Item], what: str, *, total: int | None = None) -> Iterator[Item]:
    """Yields the frames of a task and counts them on a bar, where one is wanted (`counting_frames`).

    Args:
      frames: Of one clip.
      what: What is done to them, in a word.
      total: How many there are; None where that is found out by reading them.
    """
    return iter(ProgressBar(frames, desc=what, total=total, unit="frame", leave=False, disable=not _SHOWN.get()))
