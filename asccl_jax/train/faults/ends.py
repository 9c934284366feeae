"""How training ends: exit statuses, what they mean to a person, and after which of them another start makes sense."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import TracebackType
from typing import NoReturn

__all__ = [
    "BAD_INPUT",
    "CRASHED",
    "FAILED",
    "SUMMARY",
    "TEMPORARY",
    "crash",
    "explain",
    "is_worth_a_restart",
    "leave",
    "shell_status",
]

FAILED = 1
BAD_INPUT = 2
CRASHED = os.EX_SOFTWARE
TEMPORARY = os.EX_TEMPFAIL

SUMMARY = """\
Exit status: 0 trained to the end; 1 a number became NaN, or the disk is full; 2 bad input; 70 an error in the program;
75 another process is lost, could not be joined, or nothing moved for --stall_timeout: the same command goes on; 130 or
143 stopped by Ctrl-C or SIGTERM with everything saved (several processes: 143 for both); 128 + N killed by signal N,
134 also where JAX ends a process because the one that coordinates them is gone.
"""
"""The table of `--help`."""

_FINAL = frozenset({0, FAILED, BAD_INPUT}) | {
    128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)
}
_MEANINGS = {
    CRASHED: "an error in the program, see above",
    TEMPORARY: "another process lost or not there, or nothing moved, see above",
    128 + signal.SIGABRT: "it aborted itself: JAX does where another process or the coordinator is gone, see above",
    128 + signal.SIGKILL: "kill -9, or the system was out of memory",
    128 + signal.SIGSEGV: "a crash in compiled code",
}


def is_worth_a_restart(status: int) -> bool:
    """Returns whether a start after this exit status may end otherwise: not after success, bad input, NaN or a stop.

    Args:
      status: As a shell has it, 128 + number for a signal.
    """
    return status not in _FINAL


def shell_status(returncode: int) -> int:
    """Returns the status a shell gives for the return code of `subprocess`, which counts signals below zero."""
    return 128 - returncode if returncode < 0 else returncode


def explain(status: int) -> str:
    """Returns a phrase for what happened, as "ended with status 75 (another process lost ...)"."""
    numbers = {int(number) for number in signal.Signals}
    killed = status > 128 and status - 128 in numbers
    happened = f"was ended by {signal.Signals(status - 128).name}" if killed else f"ended with status {status}"
    meaning = _MEANINGS.get(status)
    return f"{happened} ({meaning})" if meaning else happened


def leave(status: int) -> NoReturn:
    """Ends this process with an exit status, at once where it failed.

    At a regular exit JAX waits for all processes of the run, for minutes where some are stuck or gone, and then aborts.
    After a failure nothing is left to be done that would be worth it: files are closed by then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if status in (FAILED, BAD_INPUT, TEMPORARY):
        os._exit(status)
    sys.exit(status)


def crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error nobody foresaw and ends the process with 70; to be `sys.excepthook`.

    Python's own status would be 1, which cannot be told from a run that diverged.
    """
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    traceback.print_exception(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(CRASHED)
