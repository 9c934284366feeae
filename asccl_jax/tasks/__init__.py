"""What the training loop asks of a task: four functions, pure but for `export`, which writes files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, Shaped

from asccl_jax.errors import InputError
from asccl_jax.types import TrainState

__all__ = [
    "Pass",
    "Scalars",
    "Task",
    "check_accumulation",
    "over_parts",
    "task_with",
]

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


# Gradients of a batch in several passes over parts of it: one pass's activations instead of the whole batch's.

Pass: TypeAlias = Callable[[Any, Any], tuple[Any, Any, Any]]
"""From what is carried and a part of the batch to what is carried on, means over the part's rows, values a row."""


def check_accumulation(accumulation: int) -> None:
    """Raises `InputError` for a number of passes below one."""
    if accumulation < 1:
        raise InputError(f"config.accumulation={accumulation}: expected at least 1")


def over_parts(one_pass: Pass, carried: Any, batch: Any, *, parts: int) -> tuple[Any, Any, Any]:
    """Returns what one pass over the batch would, from passes over equal parts of it, one after the other.

    Part j has rows j, j + parts, j + 2 parts and so on: where rows are split over devices, each device takes its share
    of every part from rows of its own, and none travels. The mean over the batch is the mean of the parts' means, so
    gradients of a loss that is a mean over rows come out as those of one pass, but for the order of sums.

    The passes are a `lax.scan`. XLA's CPU back end runs convolutions and matrix products inside a scan on slow paths:
    there this saves memory and costs much time. Under a sharded `jit` every pass ends with its own reduction over
    devices.

    >>> def one_pass(total, part):
    ...     return total + part.sum(), part.mean(), 10 * part
    >>> [x.tolist() for x in over_parts(one_pass, jnp.zeros(()), jnp.arange(4.0), parts=2)]
    [6.0, 1.5, [0.0, 10.0, 20.0, 30.0]]

    Args:
      one_pass: What is done with a part.
      carried: What the first pass begins with, such as running statistics; each goes on from the one before.
      batch: Pytree of arrays whose first axis is the rows.
      parts: How many; one calls `one_pass` on the batch as it is.

    Returns:
      What the last pass carried on, the means of all rows, and the values of each row in the batch's order.

    Raises:
      InputError: The rows do not divide.
    """
    if parts == 1:
        return one_pass(carried, batch)
    columns = jax.tree.map(lambda rows: _in_parts(jnp.asarray(rows), parts), batch)
    first = jax.tree.map(lambda column: column[0], columns)
    sums = jax.tree.map(lambda mean: jnp.zeros(mean.shape, mean.dtype), jax.eval_shape(one_pass, carried, first)[1])

    def add_pass(carry: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], Any]:
        carried, sums = carry
        carried, means, rows = one_pass(carried, part)
        return (carried, jax.tree.map(jnp.add, sums, means)), rows

    (carried, sums), rows = lax.scan(add_pass, (carried, sums), columns)
    means = jax.tree.map(lambda total: total * jnp.asarray(1 / parts, total.dtype), sums)
    return carried, means, jax.tree.map(_in_order, rows)


def _in_parts(rows: Shaped[Array, "n *rest"], parts: int) -> Shaped[Array, "k m *rest"]:
    if rows.shape[0] % parts:
        raise InputError(
            f"config.accumulation={parts} does not divide the {rows.shape[0]} rows of a batch (under pmap, of a"
            " device's share): choose a divisor"
        )
    return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)


def _in_order(columns: Shaped[Array, "k m *rest"]) -> Shaped[Array, "n *rest"]:
    return columns.swapaxes(0, 1).reshape(-1, *columns.shape[2:])
