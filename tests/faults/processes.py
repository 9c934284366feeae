"""Processes of one start of a command: logged to files, watched, found by their numbers, and never left behind."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.faults.trial import FaultError
from tests.launched import ROOT

PATIENCE_S = 900
"""Seconds after which a run that does not do what it should is given up: many times what a busy machine needs."""


@dataclasses.dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
      status: Exit status; negative if a signal ended it.
      log: All that its processes wrote.
    """

    status: int
    log: str

    @property
    def errors(self):
        """The lines in which the command says what was wrong."""
        return [line for line in self.log.splitlines() if line.startswith("error: ")]


class Attempt:
    """One start of a command, in a session of its own.

    Args:
      command: Its words.
      logs: Folder for what it writes, made here.
      environment: Its whole environment.
    """

    def __init__(self, command, logs, *, environment):
        logs.mkdir(parents=True)
        self.logs = logs
        with (logs / "output.log").open("w") as log:
            self._process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def number(self):
        """Number of the process that was started, and of the session and group of all that it started."""
        return self._process.pid

    def is_running(self):
        return self._process.poll() is None

    def log(self):
        """All that its processes wrote; of several the first is in the output of the launcher, too, and counts once."""
        logs = [path for path in sorted(self.logs.glob("*.log")) if path.name != "host-0.log"]
        return "".join(path.read_text(errors="replace") for path in logs)

    def processes(self, word):
        """Numbers of its running processes whose command line has a word, oldest first."""
        return [pid for pid, words in in_session(self.number) if word in words]

    def wait_until(self, condition, what):
        """Waits until something holds; raises `FaultError` if the command ends before it, or nothing happens."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if not self.is_running():
                if condition():  # it came to pass just before the end
                    return
                raise FaultError(f"ended with status {self._process.returncode} before {what}:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise FaultError(f"no sign of {what} in {PATIENCE_S} s:\n{self._last_words()}")
            time.sleep(0.005)

    def finish(self, *, patience_s=PATIENCE_S):
        """Returns how the command ended, once it has."""
        try:
            status = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.end()
            raise FaultError(f"it did not end within {patience_s:.0f} s:\n{self._last_words()}") from None
        return End(status, self.log())

    def send(self, number):
        """Sends a signal to the process that was started."""
        self._process.send_signal(number)

    def end(self):
        """Kills whatever is left of it, in groups of its own as well."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.number, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + 30
        while (left := [pid for pid, _ in in_session(self.number)]) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def _last_words(self):
        return self.log()[-3000:]


def in_session(session):
    """Running processes of a session by their numbers, with the words of their command lines, oldest first."""
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; state, parent, group and session follow it.
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
