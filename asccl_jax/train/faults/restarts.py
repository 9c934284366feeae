"""Starting training again by itself: a parent without JAX that watches over one child and starts it anew.

It does after ends that another start may cure (killed, crashed, a lost process, a hang), not after success, bad input,
NaN, a full disk or a polite stop, and not for ever: a crash that repeats is no preemption.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence

from asccl_jax.train.faults import ends

__all__ = [
    "RestartSettings",
    "current_attempt",
    "is_supervised",
    "supervise",
]

_LOG = logging.getLogger(__name__)
_ATTEMPT = "ASCCL_ATTEMPT"
"""Variable that tells a child of `supervise` which attempt it is."""
_POLL_S = 0.05
# Signals of Linux: `prctl(PR_SET_PDEATHSIG, ...)` of <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class RestartSettings:
    """How often and how soon.

    Attributes:
      most: Starts after the first.
      first_pause_s: Seconds before the first restart; twice as long before each that follows without progress.
      longest_pause_s: Where that growth ends.
      fruitless: After so many attempts in a row without a newer checkpoint it gives up.
      together: Whether other processes take part. Then an attempt that ended with status 75 is not counted as
        fruitless: this process waits for others, which may take long to come back.
    """

    most: int
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    fruitless: int = 3
    together: bool = False


def is_supervised() -> bool:
    """Returns whether this process is the child of `supervise`."""
    return _ATTEMPT in os.environ


def current_attempt() -> int:
    """Returns which start of its command this process is: 1, or more where `supervise` has started it again."""
    return int(os.environ.get(_ATTEMPT, "1"))


def supervise(command: Sequence[str], settings: RestartSettings, newest: Callable[[], int | None]) -> int:
    """Runs a command as a child, again where it ends unexpectedly, and returns the exit status of the last attempt.

    SIGTERM, SIGINT and SIGHUP are passed on once, and no attempt follows; a second one kills the child.

    Args:
      command: Program and arguments.
      settings: How often and how soon.
      newest: Returns the step of the newest checkpoint on disk.
    """
    with _Child() as child:
        standing, fruitless = 0, 0
        for attempt in range(1, settings.most + 2):
            before = newest()
            status = child.run(command, attempt)
            after = newest()
            if child.stopped_by is not None or not ends.is_worth_a_restart(status):
                return status
            if after != before:
                standing, fruitless = 0, 0
            standing += 1
            if after == before and not (settings.together and status == ends.TEMPORARY):
                fruitless += 1
            happened = f"attempt {attempt} of {settings.most + 1} {ends.explain(status)}"
            if fruitless >= settings.fruitless:
                _LOG.error("%s; giving up: no new checkpoint in %d attempts, so this one repeats", happened, fruitless)
                return status
            if attempt > settings.most:
                _LOG.error("%s; giving up after %d restarts (--max_restarts)", happened, settings.most)
                return status
            pause = min(settings.first_pause_s * 2 ** (standing - 1), settings.longest_pause_s)
            begin = "from the beginning, there is no checkpoint" if after is None else f"from checkpoint {after}"
            _LOG.warning("%s; starting again in %g s, %s", happened, pause, begin)
            child.pause(pause)
            if child.stopped_by is not None:
                return 128 + child.stopped_by
    raise AssertionError("unreachable: the last attempt returns")


class _Child:
    """The process that is watched over, and the signals that are meant for it."""

    def __init__(self) -> None:
        self._heard: list[tuple[float, signal.Signals]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._previous: dict[signal.Signals, object] = {}

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that has asked for the end, if one has."""
        return self._heard[0][1] if self._heard else None

    def __enter__(self) -> _Child:
        for number in _PASSED_ON:
            # What a shell or nohup has silenced for this process stays silent.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def run(self, command: Sequence[str], attempt: int) -> int:
        """Starts the command, which learns its attempt, waits for its end and returns its status as a shell has it."""
        # A group of its own: Ctrl-C reaches this process alone, which passes it on, and not the child twice.
        self._process = subprocess.Popen(
            command, env={**os.environ, _ATTEMPT: str(attempt)}, process_group=0, preexec_fn=_end_with_parent
        )
        if self.stopped_by is not None:  # between the fork and the line above
            self._process.send_signal(self.stopped_by)
        return ends.shell_status(self._process.wait())

    def pause(self, seconds: float) -> None:
        """Waits, no longer than until a signal comes."""
        until = time.monotonic() + seconds
        while self.stopped_by is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(_POLL_S, left))

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        heard = (time.monotonic(), signal.Signals(number))
        # One handler may run in the middle of another: who is first in the list is first, whoever goes on first.
        self._heard.append(heard)
        first = self._heard[0]
        # Within a second it is the same one: schedulers signal all processes of a job, some of them twice.
        if self._process is not None and (heard is first or heard[0] - first[0] >= 1):
            self._process.send_signal(number if heard is first else signal.SIGKILL)


def _end_with_parent() -> None:
    """In the child, on Linux: has the system kill it when its parent is killed, so that none is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
