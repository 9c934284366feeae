"""A profiler trace of a few training steps: which, where it lies, and what opens it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asccl_jax.errors import InputError, writing

__all__ = ["PROFILE", "ProfiledSteps", "Profiler", "parse_profiled_steps"]

PROFILE = "profile"
"""Folder of a run with its traces."""

_WARM_UP = 3
"""Steps of this process before a trace: the first compiles, and two fill the queue of steps in flight."""

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ProfiledSteps:
    """Which steps to trace.

    Attributes:
      count: How many.
      first: The first of them, counted over the whole run; None waits for this process's first steps to pass.
    """

    count: int
    first: int | None = None


def parse_profiled_steps(text: str) -> ProfiledSteps:
    """Returns which steps "5" (so many) or "100:104" (from, to) names.

    Raises:
      InputError: Anything else, or no step at all.
    """
    first, colon, last = text.partition(":")
    numbers = [int(number) for number in ((first, last) if colon else (first,)) if number.isdecimal()]
    if len(numbers) == 1 and not colon and numbers[0] >= 1:
        return ProfiledSteps(count=numbers[0])
    if len(numbers) == 2 and 1 <= numbers[0] <= numbers[1]:
        return ProfiledSteps(count=numbers[1] - numbers[0] + 1, first=numbers[0])
    raise InputError(f"--profile {text}: expected a number of steps, such as 5, or FIRST:LAST, such as 100:104")


class Profiler:
    """Traces some steps of this process; does nothing where none are asked for.

    Args:
      steps: Which, or None.
      workdir: Folder of the run; the trace goes to `profile/` there.
      begun: Steps done before this process began.
    """

    def __init__(self, steps: ProfiledSteps | None, workdir: Path, *, begun: int) -> None:
        import jax

        self._directory = workdir / PROFILE
        if jax.process_count() > 1:
            self._directory /= f"process{jax.process_index()}"
        self._steps = range(0)
        self._traced: list[int] = []
        if steps is not None:
            first = begun + _WARM_UP + 1 if steps.first is None else steps.first
            self._steps = range(max(first, begun + 1), first + steps.count)
            if not self._steps:
                _LOG.warning("--profile: step %d is done, so there is nothing to trace", first + steps.count - 1)

    @contextlib.contextmanager
    def step(self, step: int, state: Any) -> Iterator[None]:
        """Names the block as a training step in the trace, which begins with the first step asked for.

        Args:
          step: The step that is done in the block.
          state: Arrays of the step before, which a trace that begins here waits for.
        """
        if step not in self._steps:
            yield
            return
        import jax

        if not self._traced:
            jax.block_until_ready(state)
            with writing(self._directory):
                self._directory.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
        self._traced.append(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def end_step(self, step: int, state: Any) -> None:
        """Ends the trace if `step`, whose arrays are given, was the last to trace."""
        if self._traced and step == self._steps[-1]:
            import jax

            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace under way and says where it lies; a run that ends early keeps what it has traced."""
        if not self._traced:
            return
        import jax

        with writing(self._directory):
            jax.profiler.stop_trace()
        _LOG.info(
            "profile of steps %d to %d in %s: open the perfetto_trace.json.gz there at https://ui.perfetto.dev, or"
            " pip install xprof, then xprof --logdir %s",
            *(self._traced[0], self._traced[-1], self._directory, self._directory),
        )
        self._traced.clear()
        self._steps = range(0)
