"""What a person watching sees: a bar with pairs a second and the time left, or a line now and then."""

from __future__ import annotations

import logging
import sys
import time

import tqdm

from asccl_jax.train.monitoring.step_times import StepTimes

__all__ = ["Progress"]

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 15.0


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
        if self._bar.disable and self._visible and now - self._last_line > _SECONDS_BETWEEN_LINES:
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
