"""Where the wall time of a run goes: every second belongs to one phase."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import enum
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import tqdm
from jaxtyping import Float

from asccl_jax.process import device_peak_bytes, host_peak_bytes
from asccl_jax.progress import SECONDS_BETWEEN_LINES
from asccl_jax.train.runtime import gather_rows

__all__ = ["STEP_PHASES", "Phase", "ProcessFigures", "Progress", "RunClock", "StepTimes", "gather_figures"]

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


# How long each training step took, and how much of it was waiting for input or for the device.

STEP_PHASES = (Phase.INPUT, Phase.PLACING, Phase.DEVICE, Phase.TRAINING)
"""What a step is made of; evaluation, saving and compiling are no part of it."""

Gather = Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, "p n"]]


class StepTimes:
    """Times of the steps of this process.

    Steps that compile are left out. As the loop fetches the scalars of a step while later ones are under way, a step
    that waits for all in flight seems long and those after it short: means are right all the same, while the
    percentile is over the steps in between.

    Args:
      clock: Told by the loop what it is at.
      gather: Returns a row of every process, in their order, for a row of this one; asked at the same steps by all.
    """

    def __init__(self, clock: RunClock, *, gather: Gather) -> None:
        self._clock = clock
        self._gather = gather
        # Plain numbers: this runs at every step, and arrays of four take longer.
        self._begun = [0.0] * len(STEP_PHASES)
        self._steps = 0
        self._seconds = [0.0] * len(STEP_PHASES)
        self._logged = (0, 0.0, 0.0)
        self._typical = array.array("d")

    def begin(self) -> None:
        """Notes that a step begins."""
        self._clock.settle()
        self._begun = self._read()

    def end(self, *, compiled: bool, fetched: int) -> None:
        """Notes that the step has ended.

        Args:
          compiled: Whether a program was compiled for it.
          fetched: Steps whose scalars were waited for meanwhile.
        """
        if compiled:
            return
        self._clock.settle()
        spent = [now - before for now, before in zip(self._read(), self._begun, strict=True)]
        self._steps += 1
        self._seconds = [before + now for before, now in zip(self._seconds, spent, strict=True)]
        if fetched == 1:
            self._typical.append(sum(spent))

    @property
    def steps_per_s(self) -> float:
        """Mean speed so far; 0 before the second step."""
        return self._steps / sum(self._seconds) if self._steps else 0.0

    def scalars(self) -> dict[str, float]:
        """Returns what to log: means over the steps that ended since the last call, none where none has.

        Every process must call it at the same steps, with none in flight where there are several.
        """
        now = (self._steps, sum(self._seconds), self._seconds[STEP_PHASES.index(Phase.INPUT)])
        steps, seconds, waited = (new - old for new, old in zip(now, self._logged, strict=True))
        self._logged = now
        waits = self._gather(np.array([waited]))[:, 0]
        if not steps:
            return {}
        values = {"speed/step_s": seconds / steps, "speed/input_wait_s": waited / steps}
        if len(waits) > 1:
            slowest = int(waits.argmax())
            values["speed/slowest_step_input_wait_s"] = float(waits[slowest]) / steps
            values["speed/slowest_process"] = float(slowest)
        return values

    def means_s(self) -> dict[Phase, float]:
        """Returns the mean seconds a step by phase so far; zeros before the second step."""
        return {phase: spent / max(self._steps, 1) for phase, spent in zip(STEP_PHASES, self._seconds, strict=True)}

    def p95_s(self) -> float:
        """Returns the seconds that 95 % of the steps took at most; the mean where none was typical."""
        if not self._typical:
            return sum(self.means_s().values())
        return float(np.percentile(np.frombuffer(self._typical), 95))

    def _read(self) -> list[float]:
        return [self._clock.seconds[phase] for phase in STEP_PHASES]


# What a person watching sees: a bar with pairs a second and the time left, or a line now and then.

_LOG = logging.getLogger(__name__)


class Progress:
    """Progress of the main process; the others are silent.

    Args:
      steps: Steps of the whole run.
      first: Steps done before this process began.
      batch_size: Examples a step, of all processes.
      unit: What an example is called.
      visible: False for every process but the first.
      times: Times of the steps so far.
    """

    def __init__(self, *, steps: int, first: int, batch_size: int, unit: str, visible: bool, times: StepTimes) -> None:
        self._steps = steps
        self._batch_size = batch_size
        self._unit = unit
        self._visible = visible
        self._times = times
        self._last_line = time.monotonic()
        self._bar = tqdm.tqdm(
            total=steps, initial=first, unit="step", disable=not (visible and sys.stderr.isatty()), dynamic_ncols=True
        )

    def advance(self, step: int, loss: float) -> None:
        """Notes that `step` has ended with `loss`."""
        now, steps_per_s = time.monotonic(), self._times.steps_per_s
        self._bar.set_postfix_str(f"loss {loss:.3f}, {self.examples_per_s:.1f} {self._unit}s/s", refresh=False)
        self._bar.update(1)
        if self._bar.disable and self._visible and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._steps - step) / steps_per_s if steps_per_s else 0.0
            _LOG.info(
                "step %d/%d  loss %.3f  %.1f %ss/s  %s left",
                *(step, self._steps, loss, self.examples_per_s, self._unit, tqdm.tqdm.format_interval(left)),
            )

    @property
    def examples_per_s(self) -> float:
        """Mean examples a second so far, of all processes."""
        return self._times.steps_per_s * self._batch_size

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


# What each process of a run measured of itself, told to all: speed, waiting, memory.

_NAME_BYTES = 64


@dataclasses.dataclass(frozen=True)
class ProcessFigures:
    """Figures of one process. Seconds are means over its steps, without those that compiled.

    Attributes:
      process: Its index.
      host: Name of its machine.
      step_s: A whole step.
      step_p95_s: What 95 % of the steps took at most.
      input_wait_s: Waiting for the next batch.
      placing_s: Putting the batch on the devices.
      device_wait_s: Waiting for the devices to finish.
      host_peak_bytes: The most memory it held.
      device_peak_bytes: The most that one of its devices held, or None where the back end cannot tell.
    """

    process: int
    host: str
    step_s: float
    step_p95_s: float
    input_wait_s: float
    placing_s: float
    device_wait_s: float
    host_peak_bytes: int
    device_peak_bytes: int | None

    @property
    def input_share(self) -> float:
        """Share of the time of training that went into waiting for input, 0 to 1."""
        return self.input_wait_s / self.step_s if self.step_s else 0.0


def gather_figures(times: StepTimes) -> tuple[ProcessFigures, ...]:
    """Returns the figures of all processes; all must call it together, with no step in flight."""
    means = times.means_s()
    device_peak = device_peak_bytes()
    own = [
        sum(means.values()),
        times.p95_s(),
        *(means[phase] for phase in (Phase.INPUT, Phase.PLACING, Phase.DEVICE)),
        host_peak_bytes(),
        math.nan if device_peak is None else device_peak,
    ]
    name = socket.gethostname().encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
    rows = gather_rows(np.array([*own, *name], np.float64))
    return tuple(_figures(process, row.tolist()) for process, row in enumerate(rows))


def _figures(process: int, row: list[float]) -> ProcessFigures:
    *seconds, host_peak, device_peak = row[:-_NAME_BYTES]
    step, step_p95, input_wait, placing, device_wait = seconds
    return ProcessFigures(
        process=process,
        host=bytes(map(int, row[-_NAME_BYTES:])).rstrip(b"\0").decode(errors="replace"),
        step_s=step,
        step_p95_s=step_p95,
        input_wait_s=input_wait,
        placing_s=placing,
        device_wait_s=device_wait,
        host_peak_bytes=int(host_peak),
        device_peak_bytes=None if math.isnan(device_peak) else int(device_peak),
    )
