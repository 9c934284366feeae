"""Stages of a pipeline, each a command that reads and writes files of a work folder: done once, in order, resumable.

A stage's key tells its settings and inputs and those of all stages before it. A finished stage of the same key is
skipped, one of another key loses its results and is done again, one that was interrupted goes on with what it has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pty
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, BinaryIO

from asccl_jax.errors import InputError, writing
from asccl_jax.work import sole_writer, write_atomically

__all__ = [
    "ChildError",
    "Stage",
    "StageOutcome",
    "Stopped",
    "Use",
    "WorkFolder",
    "digest",
    "ending_on_signals",
    "exit_status",
    "outcome_table",
    "python_words",
    "run_child",
    "run_stages",
    "say",
]

# One command as a process of its own: its progress shown, its words in a log, its time and memory measured.
#
# It is ended together with the process that started it.

_ERROR = b"error: "
_LOOK_S = 0.05
"""Seconds after which a silent child is looked at again."""
_PATIENCE_S = 60.0
"""How long a child that is told to end may take, to save what it has; a second signal ends it at once."""


class ChildError(RuntimeError):
    """A child failed; the message is what it said, in one line.

    Args:
      message: See above.
      status: The child's exit status, or 1 where a signal ended it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Stopped(BaseException):
    """A signal asked this process to end.

    Args:
      number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclasses.dataclass(frozen=True)
class Use:
    """What a child took.

    Attributes:
      seconds: From start to end.
      peak_mb: Most memory (resident set) of the child, or of one of its own children, in MB of 2^20 bytes.
    """

    seconds: float
    peak_mb: float


def python_words(*words: str) -> list[str]:
    """Returns the command line of a module run by this very interpreter."""
    return [sys.executable, "-m", *words]


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Lets SIGINT and SIGTERM raise `Stopped` in the block; call it in the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_child(words: Sequence[str], log: Path, *, shown: BinaryIO | None = None, inherited: Sequence[int] = ()) -> Use:
    """Runs a command to its end.

    Args:
      words: The command line.
      log: File to which all it says is added, of progress bars their last state.
      shown: Where its progress and warnings go, too; as on a terminal, where that is one. None shows nothing.
      inherited: File descriptors it keeps open.

    Returns:
      What it took.

    Raises:
      ChildError: It failed.
      Stopped: A signal came; the child has ended, too.
    """
    with writing(log), log.open("ab") as file:
        file.write(os.fsencode(f"$ {shlex.join(words)}\n"))
        file.flush()
        heard = _Heard(file, shown)
        started = time.monotonic()
        with _stderr_of_child(shown) as (reading, handed):
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=handed, start_new_session=True, pass_fds=inherited
            )
            os.close(handed)
            try:
                peak_kb = _listen(process, reading, heard)
            except BaseException as error:
                _end(process, error.number if isinstance(error, Stopped) else signal.SIGTERM)
                raise
        heard.close()
    if process.returncode:
        raise ChildError(heard.last_words(process.returncode), max(process.returncode, 1))
    return Use(round(time.monotonic() - started, 2), round(peak_kb / 1024, 1))


class _Heard:
    """Passes on what a child says, line by line, and remembers how it ended."""

    def __init__(self, log: IO[bytes], shown: BinaryIO | None) -> None:
        self._log, self._shown = log, shown
        self._rest = b""
        self._last = b""
        self._error = b""

    def add(self, content: bytes) -> None:
        *lines, self._rest = re.split(rb"(?<=[\r\n])", self._rest + content)
        for line in lines:
            self._take(line)

    def close(self) -> None:
        if self._rest:
            self._take(self._rest)
        self._rest = b""

    def last_words(self, status: int) -> str:
        """Returns what a failed child gave as the reason."""
        if status < 0:
            hint = " (out of memory?)" if status == -signal.SIGKILL else ""
            return f"ended by {signal.Signals(-status).name}{hint}"
        words = self._error.removeprefix(_ERROR) or self._last or b"no word"
        return words.decode(errors="replace") + ("" if self._error else f" (exit status {status})")

    def _take(self, line: bytes) -> None:
        words = line.strip()
        if words and not line.endswith(b"\r"):
            self._log.write(words + b"\n")
            self._log.flush()
            self._last = words
            if words.startswith(_ERROR):
                self._error = words
                return  # whoever catches `ChildError` says it
        if self._shown is not None:
            with contextlib.suppress(BrokenPipeError):
                self._shown.write(line)
                self._shown.flush()


@contextlib.contextmanager
def _stderr_of_child(shown: BinaryIO | None) -> Iterator[tuple[int, int]]:
    """Yields what to read from, and the child's end: a terminal if what it says is shown on one, for progress bars."""
    if shown is not None and shown.isatty():
        reading, handed = pty.openpty()
        columns, lines = shutil.get_terminal_size()
        tty.setraw(handed)  # line ends stay as they are written
        with contextlib.suppress(OSError):
            termios.tcsetwinsize(handed, (lines, columns))
    else:
        reading, handed = os.pipe()
    try:
        yield reading, handed
    finally:
        os.close(reading)


def _listen(process: subprocess.Popen[bytes], reading: int, heard: _Heard) -> int:
    """Passes on what the child says until it has ended, and returns its peak memory in KB."""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        speaking = True
        while True:
            if speaking and selector.select(_LOOK_S):
                speaking = _pass_on(reading, heard)
                continue
            # A process that the child leaves behind may hold its end open: the child's own end is what counts.
            number, status, usage = os.wait4(process.pid, os.WNOHANG)
            if number:
                process.returncode = os.waitstatus_to_exitcode(status)
                while speaking and selector.select(0):
                    speaking = _pass_on(reading, heard)
                return usage.ru_maxrss
            if not speaking:
                time.sleep(_LOOK_S)


def _pass_on(reading: int, heard: _Heard) -> bool:
    """Returns whether there may be more."""
    try:
        content = os.read(reading, 65536)
    except OSError:  # how a terminal says that its other end is closed
        return False
    heard.add(content)
    return bool(content)


def _end(process: subprocess.Popen[bytes], number: int) -> None:
    """Ends a child with all of its own, which share its process group."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    try:
        process.wait(_PATIENCE_S)
    except (subprocess.TimeoutExpired, Stopped):
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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


# What commands that run a pipeline share: how they speak while it runs, and with which exit status they end.


def exit_status(run: Callable[[], int]) -> int:
    """Runs a pipeline and returns its own exit status, or that of what ended it, which is said in one line.

    Args:
      run: The pipeline; signals raise `Stopped` in it.

    Returns:
      2 where a stage found bad input, 1 where one failed otherwise, 128 + signal where the user stopped it.
    """
    try:
        with ending_on_signals():
            return run()
    except ChildError as error:
        say(f"error: {error}")
        return 2 if error.status == 2 else 1
    except Stopped as signal:
        say(f"\nstopped by {signal}; the same command goes on")
        return 128 + signal.number


def say(line: str) -> None:
    """Writes a line for the user beside the progress of the stages."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
