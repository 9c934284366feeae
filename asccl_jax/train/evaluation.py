"""Held-out scores: the same examples every time, exact means also where the last batch is padded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool

from asccl_jax.tasks import Scalars, Task
from asccl_jax.train.sharding import place, replicated, split_over_data
from asccl_jax.types import TrainState

__all__ = ["HeldOutBatches", "Scorer"]


HeldOutBatches: TypeAlias = Iterable[tuple[Any, Bool[np.ndarray, " b"]]]
"""This process's rows of each batch, as host arrays in the task's dataclass, and which of them are not filling."""


class Scorer:
    """Scores states of one task on one set of held-out examples.

    Args:
      task: Gives one number an example and scalar; its frozen networks are on the devices.
      batches: Makes the batches anew, always the same ones.
      mesh: Devices of the run.
    """

    def __init__(self, task: Task, batches: Callable[[], HeldOutBatches], mesh: Mesh) -> None:
        # One program a batch, fetched before the next starts: processes must meet in their collectives in one order,
        # which two independent programs in flight would not ensure.
        def masked_sums(task: Task, state: TrainState, batch: Any, real: jax.Array) -> tuple[Scalars, jax.Array]:
            scores = task.evaluate(state, batch)
            sums = {name: jnp.sum(jnp.where(real, values, 0.0)) for name, values in scores.items()}
            return sums, jnp.count_nonzero(real)

        self._sums = jax.jit(
            masked_sums,
            in_shardings=(replicated(mesh), replicated(mesh), split_over_data(mesh), split_over_data(mesh)),
            out_shardings=replicated(mesh),
        )
        self._task = task
        self._batches = batches
        self._mesh = mesh

    def means(self, state: TrainState) -> dict[str, float]:
        """Returns the mean of every scalar over the held-out examples of all processes."""
        totals: dict[str, float] = {}
        examples = 0
        for batch, real in self._batches():
            rows = place(batch, self._mesh), place(real, self._mesh)
            sums, count = jax.device_get(self._sums(self._task, state, *rows))
            examples += int(count)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + float(value)
        return {name: total / examples for name, total in totals.items()}
