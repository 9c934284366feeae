"""What commands that run a pipeline share: how they speak while it runs, and with which exit status they end."""

from __future__ import annotations

import sys
from collections.abc import Callable

from DECA_torch_bridge.video.child_process import ChildError, Stopped, ending_on_signals

__all__ = ["exit_status", "say"]


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
