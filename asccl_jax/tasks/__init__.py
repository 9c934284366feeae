"""What the training loop asks of a task: four functions, pure but for `export`, which writes files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

from asccl_jax.types import TrainState

__all__ = ["Scalars", "Task"]

Scalars = dict[str, Float[Array, "..."]]
"""Named results, `group/name`: one number each from `update`, one number an example from `evaluate`."""


@runtime_checkable
class Task(Protocol):
    """One thing to train: the correlation metric now, the generators later.

    The loop jits `init`, `update` and `evaluate`; they are pure functions of their arguments and know nothing of
    devices, files or configs.
    """

    @property
    def loss(self) -> str:
        """Scalar of `update` to show while training."""
        ...

    @property
    def score(self) -> str:
        """Scalar of `evaluate` whose lowest mean marks the best state."""
        ...

    def init(self, key: Key[Array, ""]) -> TrainState:
        """Returns the state before the first update."""
        ...

    def update(self, state: TrainState, batch: Any, *, axis_name: str | None = None) -> tuple[TrainState, Scalars]:
        """Returns the state after one step, and scalars of that step.

        Args:
          state: State before the step.
          batch: The task's batch dataclass.
          axis_name: Name of the mapped axis under `pmap`, over which gradients, statistics and scalars are averaged;
            None under `jit`, sharded or not, where the batch is the global one.
        """
        ...

    def evaluate(self, state: TrainState, batch: Any) -> Scalars:
        """Returns held-out scores, one number an example; never changes the state, nor reads its `opt_state`."""
        ...

    def export(self, state: TrainState, directory: Path) -> None:
        """Writes what later stages use to `directory`, whole or not at all; never reads the state's `opt_state`."""
        ...
