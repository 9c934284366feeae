"""Where the wall time of a run goes: every second belongs to one phase."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable, Iterator

import jax

__all__ = ["Phase", "RunClock"]

_COMPILING = frozenset(
    f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)
"""What JAX calls the parts of compiling when it tells how long they took."""


class Phase(enum.StrEnum):
    """What a process is at."""

    STARTING = "starting"
    COMPILING = "compiling"
    INPUT = "waiting_for_input"
    PLACING = "placing"
    DEVICE = "waiting_for_device"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SAVING = "saving"


class RunClock:
    """Adds up seconds by phase, from its making on; close it, so that JAX no longer tells it of compilations.

    A phase within another takes its seconds from the outer one, and compiling, which happens at the first call of
    anything, from whichever phase meets it. So the seconds of all phases are those of the run.

    Args:
      listener: Is told of every change of phase.
    """

    def __init__(self, listener: Callable[[Phase], None] = lambda phase: None) -> None:
        self._listener = listener
        self.seconds = dict.fromkeys(Phase, 0.0)
        self._phase = Phase.STARTING
        self._since = time.perf_counter()
        self._thread = threading.get_ident()
        self._compiled: list[tuple[float, float]] = []
        jax.monitoring.register_event_time_span_listener(self._note_compilation)

    def turn_to(self, phase: Phase) -> None:
        """Counts the seconds from here on as those of `phase`."""
        now = time.perf_counter()
        self.seconds[self._phase] += now - self._since
        changed, self._phase, self._since = phase is not self._phase, phase, now
        if changed:
            self._listener(phase)

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Counts the block's seconds as those of `phase`."""
        outer = self._phase
        self.turn_to(phase)
        try:
            yield
        finally:
            self.turn_to(outer)

    def settle(self) -> None:
        """Adds the seconds since the last change of phase, so that `seconds` is up to date."""
        self.turn_to(self._phase)

    def close(self) -> None:
        """Stops listening."""
        jax.monitoring.unregister_event_time_span_listener(self._note_compilation)

    def _note_compilation(self, event: str, start_time: float, end_time: float, **kwargs: str | int) -> None:
        del kwargs
        # Another thread's compilation keeps nobody waiting here.
        if event not in _COMPILING or threading.get_ident() != self._thread:
            return
        counted = 0.0
        # Tracing a function traces those it calls, which have told of themselves before.
        while self._compiled and self._compiled[-1][0] >= start_time:
            counted += self._compiled.pop()[1]
        self._compiled.append((start_time, end_time - start_time))
        self.seconds[Phase.COMPILING] += end_time - start_time - counted
        self.seconds[self._phase] -= end_time - start_time - counted
