"""What a person watching sees: a bar with pairs a second and the time left, or a line now and then."""

from __future__ import annotations

import logging
import sys
import time

import tqdm

__all__ = ["Progress"]

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Progress of the main process; the others are silent.

    Speed counts training only: the first step, which compiles, and pauses are left out.

    Args:
      steps: Steps of the whole run.
      first: Steps done before this process began.
      batch_size: Examples a step, of all processes.
      unit: What an example is called.
      visible: False for every process but the first.
    """

    def __init__(self, *, steps: int, first: int, batch_size: int, unit: str, visible: bool) -> None:
        self._steps = steps
        self._batch_size = batch_size
        self._unit = unit
        self._visible = visible
        self._timed_steps = 0
        self._timed_seconds = 0.0
        self._since: float | None = None
        self._last_line = time.monotonic()
        self._bar = tqdm.tqdm(
            total=steps, initial=first, unit="step", disable=not (visible and sys.stderr.isatty()), dynamic_ncols=True
        )

    def advance(self, step: int, loss: float) -> None:
        """Notes that `step` has ended with `loss`."""
        now = time.monotonic()
        if self._since is not None:
            self._timed_steps += 1
            self._timed_seconds += now - self._since
        self._since = now
        self._bar.set_postfix_str(f"loss {loss:.3f}, {self.examples_per_s:.1f} {self._unit}s/s", refresh=False)
        self._bar.update(1)
        if self._bar.disable and self._visible and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._steps - step) / self.steps_per_s if self.steps_per_s else 0.0
            _LOG.info(
                "step %d/%d  loss %.3f  %.1f %ss/s  %s left",
                *(step, self._steps, loss, self.examples_per_s, self._unit, tqdm.tqdm.format_interval(left)),
            )

    def pause(self) -> None:
        """Stops the clock until the next step ends: an evaluation or a save comes now."""
        self._since = None

    @property
    def steps_per_s(self) -> float:
        """Mean speed of this process so far; 0 before the second step."""
        return self._timed_steps / self._timed_seconds if self._timed_seconds > 0 else 0.0

    @property
    def examples_per_s(self) -> float:
        """Mean examples a second so far, of all processes."""
        return self.steps_per_s * self._batch_size

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
