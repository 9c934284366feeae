"""Stages of a pipeline, each a command that reads and writes files of a work folder: done once, in order, resumable.

A stage's key tells its settings and inputs and those of all stages before it. A finished stage of the same key is
skipped, one of another key loses its results and is done again, one that was interrupted goes on with what it has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from asccl_jax.errors import InputError, writing
from asccl_jax.work import sole_writer, write_atomically
from DECA_torch_bridge.video.child_process import ChildError, Use, run_child

__all__ = ["Stage", "StageOutcome", "WorkFolder", "digest", "outcome_table", "run_stages"]

VERSION = 1
"""Raised when equal settings give other results, so that old work is not taken up."""

_MARK = "pipeline.json"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command of a pipeline.

    Attributes:
      name: What it is called, in one word.
      words: Its command line.
      output: The file or folder it makes.
      depends: What its result depends on besides the stages before it, as JSON can hold it.
      inside: Whether the output lies in the work folder, and is removed before it is made anew.
    """

    name: str
    words: tuple[str, ...]
    output: Path
    depends: Any
    inside: bool = True


@dataclasses.dataclass(frozen=True)
class StageOutcome:
    """What became of a stage.

    Attributes:
      name: Its name.
      seconds: Time it took when it was done.
      peak_mb: Memory it took, see `child_process.Use`.
      skipped: Whether it had been done before.
    """

    name: str
    seconds: float
    peak_mb: float
    skipped: bool


@dataclasses.dataclass(frozen=True)
class WorkFolder:
    """Where the stages of one pipeline work.

    Attributes:
      path: The folder; no other files are kept in it.
      option: What the user names it by.
    """

    path: Path
    option: str = "--work"

    def check(self) -> None:
        """Raises `InputError` if the folder holds something else, which must not be removed."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.option} {self.path}: is a file, expected a folder")
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / _MARK).is_file():
            raise InputError(
                f"{self.option} {self.path}: holds other files; name a folder that is empty or not there yet"
            )

    @contextlib.contextmanager
    def claimed(self) -> Iterator[int]:
        """Makes the folder and holds it; yields a file descriptor which children keep open, and so hold it, too.

        Raises:
          InputError: Another run, or a child that it left behind, holds it.
        """
        self.check()
        with writing(self.path):
            (self.path / "stages").mkdir(parents=True, exist_ok=True)
            (self.path / "logs").mkdir(exist_ok=True)
            if not (self.path / _MARK).is_file():
                write_atomically(self.path / _MARK, json.dumps({"version": VERSION}) + "\n")
        with sole_writer(self.path, self.option) as descriptor:
            yield descriptor

    def log(self, stage: str) -> Path:
        """Returns where the words of a stage go."""
        return self.path / "logs" / f"{stage}.log"

    def note(self, name: str) -> dict[str, Any]:
        """Returns what is noted under a name; nothing where there is none, or none that can be read."""
        try:
            found = json.loads((self.path / "stages" / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_note(self, name: str, content: dict[str, Any]) -> None:
        """Notes something."""
        path = self.path / "stages" / f"{name}.json"
        with writing(path):
            write_atomically(path, json.dumps(content, indent=1) + "\n")

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path)


def run_stages(
    stages: Sequence[Stage],
    work: WorkFolder,
    *,
    first: str | None = None,
    last: str | None = None,
    shown: BinaryIO | None = None,
    say: Callable[[str], None] = lambda words: None,
    after: Callable[[Stage], None] = lambda stage: None,
    held: Sequence[int] = (),
) -> list[StageOutcome]:
    """Does what is left to do of some stages and returns what became of each, up to the last one asked for.

    Args:
      stages: In order.
      work: Their folder, claimed.
      first: Stage from which all is done anew; those before it must have been done.
      last: Stage after which to stop.
      shown: Where the progress of the commands is shown.
      say: Takes a line for the user.
      after: Called with every stage that is done.
      held: File descriptors that the commands keep open.

    Raises:
      ChildError: A stage failed; the message is one line that names it and its log.
      InputError: A stage before `first` has not been done with these settings.
    """
    names = [stage.name for stage in stages]
    begin = 0 if first is None else names.index(first)
    end = len(stages) if last is None else names.index(last) + 1
    keys = _keys(stages)
    if first is not None:
        _require_done(stages[:begin], keys, work, first)
    outcomes = []
    for number, (stage, key) in enumerate(zip(stages[:end], keys, strict=False), start=1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        forced = first is not None and number > begin
        if not forced and _is_done(stage, key, work):
            say(f"{place}: done before")
            note = work.note(stage.name)
            outcomes.append(StageOutcome(stage.name, note["seconds"], note["peak_mb"], skipped=True))
        else:
            say(f"{place} ...")
            _clear(stage, key, work, forced=forced)
            use = _do(stage, key, work, shown, held)
            outcomes.append(StageOutcome(stage.name, use.seconds, use.peak_mb, skipped=False))
        after(stage)
    return outcomes


def _keys(stages: Sequence[Stage]) -> list[str]:
    keys: list[str] = []
    for stage in stages:
        keys.append(digest(VERSION, keys[-1:], stage.name, stage.depends))
    return keys


def _is_done(stage: Stage, key: str, work: WorkFolder) -> bool:
    note = work.note(stage.name)
    return note.get("key") == key and bool(note.get("finished")) and stage.output.exists()


def _require_done(stages: Sequence[Stage], keys: Sequence[str], work: WorkFolder, first: str) -> None:
    missing = [stage.name for stage, key in zip(stages, keys, strict=False) if not _is_done(stage, key, work)]
    if missing:
        raise InputError(
            f"--from {first}: {', '.join(missing)} not done with these settings in {work.path}; leave --from out, and"
            " what is missing is done first (a run keeps its work with --keep)"
        )


def _clear(stage: Stage, key: str, work: WorkFolder, *, forced: bool) -> None:
    """Removes what a stage of another key has left, and its note; what this very stage has left helps it to go on."""
    note = work.note(stage.name)
    same = note.get("key") == key and not note.get("finished")
    if stage.inside and (forced or not same):
        if stage.output.is_dir():
            shutil.rmtree(stage.output)
        stage.output.unlink(missing_ok=True)
        work.log(stage.name).unlink(missing_ok=True)
    work.write_note(stage.name, {"key": key, "finished": False})


def _do(stage: Stage, key: str, work: WorkFolder, shown: BinaryIO | None, held: Sequence[int]) -> Use:
    log = work.log(stage.name)
    try:
        use = run_child(stage.words, log, shown=shown, inherited=held)
    except ChildError as error:
        raise ChildError(f"stage {stage.name}: {error}; log: {log}", error.status) from error
    work.write_note(stage.name, {"key": key, "finished": True, **dataclasses.asdict(use)})
    return use


def digest(*parts: Any) -> str:
    """Returns a digest of anything JSON can hold, paths as text."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def outcome_table(outcomes: Sequence[StageOutcome]) -> str:
    """Returns time and memory of the stages as a small table.

    >>> print(outcome_table([StageOutcome("edit", 2.5, 310.2, False), StageOutcome("render", 70, 512, True)]), end="")
    stage       time    peak
    edit       2.5 s  310 MB
    render    70.0 s  512 MB  (done before)
    all       72.5 s  512 MB
    """
    rows = [(outcome.name, outcome.seconds, outcome.peak_mb, outcome.skipped) for outcome in outcomes]
    rows.append(("all", sum(row[1] for row in rows), max((row[2] for row in rows), default=0.0), False))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'stage':<{width}}  {'time':>8}  {'peak':>6}"]
    for name, seconds, peak_mb, skipped in rows:
        lines.append(f"{name:<{width}}  {seconds:>6.1f} s  {peak_mb:>3.0f} MB{'  (done before)' if skipped else ''}")
    return "\n".join(lines) + "\n"
