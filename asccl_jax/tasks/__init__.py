"""What the training loop asks of a task: four functions, pure but for `export`, which writes files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Float, Key

from asccl_jax.types import TrainState

__all__ = ["Scalars", "Task", "task_with"]

_Class = TypeVar("_Class", bound=type)

Scalars = dict[str, Float[Array, "..."]]
"""Named results, `group/name`: one number each from `update`, one number an example from `evaluate`."""


@runtime_checkable
class Task(Protocol):
    """One thing to train: the metric, or a generator.

    The loop jits `update` and `evaluate`; they are pure functions of the task and their arguments and know nothing of
    devices, files or configs.

    A task is a pytree whose leaves are the frozen networks that it looks at, so that a compiled program takes them as
    arguments: weights it has closed over would be part of it, in memory and in the compilation cache. A class of one's
    own that looks at none may be registered by `jax.tree_util.register_static`.
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


def task_with(*networks: str) -> Callable[[_Class], _Class]:
    """Returns a decorator that makes a dataclass a pytree, as `Task` asks for.

    Programs are compiled anew for other values of the fields that are not named; `start`, which only `init` reads, they
    do not see.

    Args:
      networks: Fields that hold frozen networks, as pytrees.
    """

    def register(task: _Class) -> _Class:
        fixed = [field.name for field in dataclasses.fields(task) if field.name not in (*networks, "start")]
        return jax.tree_util.register_dataclass(task, data_fields=networks, meta_fields=fixed, drop_fields=("start",))

    return register
