"""What a run is made of, and how it ended."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from asccl_jax.errors import InputError
from asccl_jax.tasks import Task
from asccl_jax.train.evaluation import HeldOutBatches
from asccl_jax.train.run.clock import Phase, ProcessFigures
from asccl_jax.types import TrainState

__all__ = ["BatchIterator", "Experiment", "FitResult", "LoopSettings"]


@runtime_checkable
class BatchIterator(Protocol):
    """Endless training batches whose position can be saved; Grain's iterators are such."""

    def __next__(self) -> Any:
        """Returns this process's rows of the next global batch, host arrays in the task's batch dataclass."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Returns the position, as JSON can hold it."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""
        ...

    def close(self) -> None:
        """Ends the threads that read ahead."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long, and how often what.

    Attributes:
      steps: Updates in all.
      batch_size: Examples an update, over all devices of all processes.
      seed: Seed of the weights and of the locations drawn at each step.
      log_every: Steps between lines of scalars.
      evaluate_every: Steps between held-out scores; the last step always has them.
      checkpoint_every: Steps between checkpoints; the last step always has one.
      keep_checkpoints: Newest checkpoints to keep; the best one scored is kept besides.
      keep_every: Checkpoints at a multiple of so many steps are kept for good; 0 for none.
      fsdp: Devices over which weights and optimiser state are split; see `train.sharding`.
      accumulation: Passes that the task makes an update of.
    """

    steps: int
    batch_size: int
    seed: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_checkpoints: int
    keep_every: int = 0
    fsdp: int = 1
    accumulation: int = 1

    def __post_init__(self) -> None:
        """Checks that all counts are positive, and that there will be a checkpoint at each step to keep one of."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("seed", "keep_every") and value < 1:
                raise InputError(f"config.{field.name}={value}: expected at least 1")
        if self.keep_every < 0 or self.keep_every % self.checkpoint_every:
            raise InputError(
                f"config.keep_every={self.keep_every}: expected a multiple of checkpoint_every={self.checkpoint_every},"
                " or 0 to keep none for good"
            )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run is made of.

    Attributes:
      task: What is trained.
      batches: Training data.
      held_out: Makes the batches to score, always the same ones.
      settings: Lengths and intervals.
      config: The recipe, as JSON can hold it; saved beside the checkpoints and compared when a run goes on.
      baseline: Turns the untrained state into the one whose scores stand at step 0.
      unit: What an example is called.
      pictures: Draws RGB pictures of a state by name, at each evaluation; called by the main process alone, so it must
        not work on arrays of several processes.
      task_at: Task whose update the step after so many takes, where that changes in the course of a run; of the same
        state as `task`. Each is compiled once: a condition inside one compiled update would slow all of it on CPUs.
      speakers: By split, who is trained on and who is selected by; saved in the run.
    """

    task: Task
    batches: BatchIterator
    held_out: Callable[[], HeldOutBatches]
    settings: LoopSettings
    config: dict[str, Any]
    baseline: Callable[[TrainState, Mesh], TrainState]
    unit: str = "pair"
    pictures: Callable[[TrainState], Mapping[str, UInt8[np.ndarray, "h w 3"]]] | None = None
    task_at: Callable[[int], Task] | None = None
    speakers: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
      step: Updates done in all.
      stopped_by: Signal that ended it early, or None.
      best_step: Step of the state in `best/`; None before the first evaluation.
      best_score: Its held-out score, or None.
      steps_per_s: Speed of this process, without compilation, evaluation and saving; 0 if it did no step.
      seconds: Wall time of this process in the loop, all included.
      first_step: Steps done before this process began.
      batch_size: Examples a step.
      unit: What an example is called.
      phase_s: Seconds of this process by phase; they add up to `seconds`.
      checkpoints: Checkpoints written.
      processes: What each process measured of itself.
    """

    step: int
    stopped_by: signal.Signals | None
    best_step: int | None
    best_score: float | None
    steps_per_s: float
    seconds: float
    first_step: int
    batch_size: int
    unit: str
    phase_s: Mapping[Phase, float]
    checkpoints: int
    processes: tuple[ProcessFigures, ...]
