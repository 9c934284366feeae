"""One command as a process of its own: its progress shown, its words in a log, its time and memory measured.

It is ended together with the process that started it.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, BinaryIO

from asccl_jax.errors import writing

__all__ = ["ChildError", "Stopped", "Use", "ending_on_signals", "python_words", "run_child"]

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
