"""A polite stop: SIGTERM and Ctrl-C end training after the current step, with everything saved."""

from __future__ import annotations

import logging
import signal
import types

import jax
from jax.experimental import multihost_utils

__all__ = ["StopSignals"]

_LOG = logging.getLogger(__name__)


class StopSignals:
    """Context in which SIGTERM and SIGINT only set a flag; a second one ends the process at once.

    With several processes the signal may reach one of them only. Then JAX's preemption service listens instead, and
    names one step at which all processes stop together.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}
        self._alone = jax.process_count() == 1

    def __enter__(self) -> StopSignals:
        if self._alone:
            for number in (signal.SIGTERM, signal.SIGINT):
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
        self._received = signal.Signals(number)
        _LOG.warning("%s received: finishing this step and saving; send it again to stop at once", self._received.name)
        for other, handler in self._previous.items():
            signal.signal(other, handler)  # type: ignore[arg-type]
