"""How long each training step took, and how much of it was waiting for input or for the device."""

from __future__ import annotations

import array
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from asccl_jax.train.monitoring.run_clock import Phase, RunClock

__all__ = ["STEP_PHASES", "StepTimes"]

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
