"""What each process of a run measured of itself, told to all: speed, waiting, memory."""

from __future__ import annotations

import dataclasses
import math
import socket

import numpy as np

from asccl_jax.peak_memory import device_peak_bytes, host_peak_bytes
from asccl_jax.train.monitoring.run_clock import Phase
from asccl_jax.train.monitoring.step_times import StepTimes
from asccl_jax.train.runtime import gather_rows

__all__ = ["ProcessFigures", "gather_figures"]

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
