"""A polite stop: SIGTERM and Ctrl-C end training after the current step, with everything saved."""

from __future__ import annotations

import logging
import os
import signal
import types

import jax
from jax.experimental import multihost_utils

from asccl_jax.train.faults import restarts

__all__ = ["StopSignals"]

_LOG = logging.getLogger(__name__)


class StopSignals:
    """Context in which SIGTERM and SIGINT only set a flag; a second one ends the process at once.

    With several processes the signal may reach one of them only. Then JAX's preemption service listens instead, and
    names one step at which all processes stop together. It knows SIGTERM alone, so SIGINT is turned into one, and the
    end is by SIGTERM for all of them, whoever was interrupted.

    Under `restarts.supervise` further signals are ignored here: a scheduler that signals all processes of a job reaches
    this one twice, once through its parent, and of the second one that is meant the parent makes a SIGKILL.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}
        self._alone = jax.process_count() == 1

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,):
            # What a shell has silenced for a process in its background stays silent.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def requested(self, step: int) -> signal.Signals | None:
        """Returns the signal on which to stop after `step`, or None; every process must ask at every step."""
        if not self._alone and multihost_utils.reached_preemption_sync_point(step):
            self._received = signal.SIGTERM
        return self._received

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        _LOG.warning(
            "%s received: finishing this step and saving; send it again to stop at once", signal.Signals(number).name
        )
        # The main thread may sit in a collective, where no handler in Python runs: the next one is the system's affair.
        for other, handler in self._previous.items():
            after = signal.SIG_IGN if restarts.is_supervised() else handler if self._alone else signal.SIG_DFL
            signal.signal(other, after)  # type: ignore[arg-type]
        if self._alone:
            self._received = signal.Signals(number)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
