"""Scalars fetched late, so that the host never waits for the step it has just started, and checked for NaN."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping

import jax

__all__ = ["NonFiniteError", "ScalarQueue", "check_finite"]


class NonFiniteError(RuntimeError):
    """A scalar is NaN or infinite.

    Attributes:
      name: The scalar.
      step: The step it belongs to.
      value: What it was.
    """

    def __init__(self, name: str, step: int, value: float) -> None:
        super().__init__(f"{name} is {value} at step {step}")
        self.name = name
        self.step = step
        self.value = value


class ScalarQueue:
    """Scalars of the steps in flight, in order.

    Args:
      depth: Steps that may be in flight. Two keep the device busy; more only delay the check.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._waiting: collections.deque[tuple[int, Mapping[str, jax.Array]]] = collections.deque()

    def push(self, step: int, scalars: Mapping[str, jax.Array]) -> Iterator[tuple[int, dict[str, float]]]:
        """Adds a step just started; yields those that are `depth` steps old.

        Raises:
          NonFiniteError: One of the yielded scalars is not finite.
        """
        for value in scalars.values():
            value.copy_to_host_async()
        self._waiting.append((step, scalars))
        yield from self._pop(self._depth)

    def drain(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Waits for all steps in flight and yields their scalars.

        Raises:
          NonFiniteError: One of them is not finite.
        """
        yield from self._pop(0)

    def _pop(self, remaining: int) -> Iterator[tuple[int, dict[str, float]]]:
        while len(self._waiting) > remaining:
            step, scalars = self._waiting.popleft()
            values = {name: float(value) for name, value in scalars.items()}
            check_finite(step, values)
            yield step, values


def check_finite(step: int, values: Mapping[str, float]) -> None:
    """Raises `NonFiniteError` for the first value that is NaN or infinite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(name, step, value)
