"""The training loop, the same for every task: update, log, evaluate, save, stop politely, go on exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from asccl_jax.data.atomic import write_atomically
from asccl_jax.errors import InputError, WriteError, writing
from asccl_jax.tasks import Task
from asccl_jax.train.checkpoint import Checkpoints, newest_on_disk
from asccl_jax.train.evaluation import HeldOutBatches, Scorer
from asccl_jax.train.progress import Progress
from asccl_jax.train.scalars import NonFiniteError, ScalarQueue, check_finite
from asccl_jax.train.sharding import data_mesh, place, replicate, replicated, sharded_update
from asccl_jax.train.signals import StopSignals
from asccl_jax.train.writer import ScalarWriter
from asccl_jax.types import TrainState

__all__ = ["BatchIterator", "DivergedError", "Experiment", "FitResult", "LoopSettings", "fit"]

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"

_LOG = logging.getLogger(__name__)


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
      keep_checkpoints: Newest checkpoints to keep.
    """

    steps: int
    batch_size: int
    seed: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_checkpoints: int

    def __post_init__(self) -> None:
        """Checks that all counts are positive."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "seed" and value < 1:
                raise InputError(f"config.{field.name}={value}: expected at least 1")


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
    """

    step: int
    stopped_by: signal.Signals | None
    best_step: int | None
    best_score: float | None
    steps_per_s: float
    seconds: float


class DivergedError(RuntimeError):
    """Training met a number that is not finite and stopped; the message says where, and what is safe on disk."""


def fit(experiment: Experiment, workdir: Path) -> FitResult:
    """Trains to the last step, from the newest checkpoint in `workdir` if there is one, and returns how it ended.

    Writes `metrics.jsonl`, `tensorboard/`, `pictures/` (where the task draws any), `checkpoints/`, and through the
    task's `export` `initial/` (before training), `best/` (lowest held-out score) and `last/`.

    Args:
      experiment: What to train and on what.
      workdir: Folder of the run.

    Raises:
      InputError: The checkpoint there is of another network or config, or the data is broken.
      DivergedError: A scalar became NaN or infinite. The checkpoints on disk are from before that.
      WriteError: The disk is full, or access is denied. The checkpoints on disk are whole.
    """
    try:
        return _fit(experiment, workdir)
    except WriteError as error:
        good = newest_on_disk(workdir / CHECKPOINTS)
        safe = f"checkpoint {good} is whole" if good is not None else "there is no checkpoint yet"
        raise WriteError(
            f"training stopped: {error}; {safe}: make room and give the same command, which goes on from there"
        ) from error


def _fit(experiment: Experiment, workdir: Path) -> FitResult:
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(experiment.batches.close)
        run = _Run(experiment, workdir, stack)
        try:
            stopped_by = run.train()
        except NonFiniteError as error:
            run.checkpoints.wait()
            good = run.checkpoints.latest_step()
            safe = f"checkpoint {good} and last/ are good" if good is not None else "there is no checkpoint yet"
            raise DivergedError(
                f"training stopped: {error}; {safe} in {workdir}; go on with the same command and, say, half the"
                f" learning rate, --config.learning_rate={experiment.config.get('learning_rate', 1e-3) / 2:g}"
            ) from error
        return FitResult(
            step=run.step,
            stopped_by=stopped_by,
            best_step=run.best_step,
            best_score=run.best_score,
            steps_per_s=run.progress.steps_per_s,
            seconds=time.monotonic() - begin,
        )


class _Run:
    """One process's part of a run: what changes from step to step, and the files it goes to."""

    def __init__(self, experiment: Experiment, workdir: Path, stack: contextlib.ExitStack) -> None:
        settings = experiment.settings
        self.experiment = experiment
        self.workdir = workdir
        self.mesh = data_mesh(settings.batch_size)
        self.checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=settings.keep_checkpoints)
        stack.callback(self.checkpoints.close)
        self.step = 0
        self.best_step: int | None = None
        self.best_score: float | None = None
        self.state = self._first_state()
        main_process = jax.process_index() == 0
        if main_process:
            with writing(workdir):
                write_atomically(workdir / CONFIG_FILE, json.dumps(experiment.config, indent=2) + "\n")
        # Without a checkpoint nothing that an attempt wrote counts, its score of the untrained state included.
        kept = self.step if self.checkpoints.latest_step() is not None else -1
        self.writer = stack.enter_context(ScalarWriter(workdir, last_step=kept)) if main_process else None
        self.stop = stack.enter_context(StopSignals())
        self.progress = Progress(
            steps=settings.steps,
            first=self.step,
            batch_size=settings.batch_size,
            unit=experiment.unit,
            visible=main_process,
        )
        stack.callback(self.progress.close)
        self.scorer = Scorer(experiment.task, experiment.held_out, self.mesh)
        self._updates: dict[Task, Callable[..., Any]] = {}

    def _first_state(self) -> TrainState:
        """Takes the first there is of: 1. the newest checkpoint of this workdir, 2. the task's own start."""
        task, key = self.experiment.task, jax.random.key(self.experiment.settings.seed)
        restored = self.checkpoints.restore(
            jax.eval_shape(task.init, key), config=self.experiment.config, sharding=replicated(self.mesh)
        )
        if restored is None:
            return replicate(task.init(key), self.mesh)
        self.experiment.batches.set_state(restored.data)
        self.step = int(restored.state.step)
        self.best_step = restored.progress["best_step"]
        self.best_score = restored.progress["best_score"]
        _LOG.info("going on from checkpoint %d in %s", self.step, self.checkpoints.directory)
        return restored.state

    def train(self) -> signal.Signals | None:
        """Runs all steps that are left; returns the signal that ended it early, or None."""
        settings = self.experiment.settings
        scalars = ScalarQueue()
        if self.step == 0:
            self._score_baseline()
        while self.step < settings.steps:
            batch = place(next(self.experiment.batches), self.mesh)
            self.state, values = self._update()(self.state, batch)
            self.step += 1
            for step, fetched in scalars.push(self.step, values):
                self._log(step, fetched)
            stopped_by = self.stop.requested(self.step)
            evaluate = self.step % settings.evaluate_every == 0 or self.step == settings.steps
            save = self.step % settings.checkpoint_every == 0 or self.step == settings.steps or stopped_by is not None
            if evaluate or save:
                # Nothing is judged or saved before all steps up to here are known to be finite.
                for step, fetched in scalars.drain():
                    self._log(step, fetched)
                self.progress.pause()
            if evaluate:
                self._evaluate()
            if save:
                self._save()
            if stopped_by is not None:
                return stopped_by
        return None

    def _update(self) -> Callable[..., Any]:
        """The compiled update of the step that comes now."""
        task_at = self.experiment.task_at
        task = self.experiment.task if task_at is None else task_at(self.step)
        if task not in self._updates:
            self.progress.pause()  # compiling is no training
            self._updates[task] = sharded_update(task.update, self.mesh)
        return self._updates[task]

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.progress.advance(step, values[self.experiment.task.loss])
        if self.writer is not None and step % self.experiment.settings.log_every == 0:
            self.writer.write(step, {**values, f"speed/{self.experiment.unit}s_per_s": self.progress.examples_per_s})

    def _score_baseline(self) -> None:
        baseline = self.experiment.baseline(self.state, self.mesh)
        self._score(baseline)
        self._export(baseline, "initial")

    def _evaluate(self) -> None:
        score = self._score(self.state)
        if self.writer is not None and self.experiment.pictures is not None:
            self.writer.write_pictures(self.step, self.experiment.pictures(self.state))
        if self.best_score is None or score < self.best_score:
            self.best_step, self.best_score = self.step, score
            self._export(self.state, "best")

    def _score(self, state: TrainState) -> float:
        means = self.scorer.means(state)
        check_finite(self.step, means)
        if self.writer is not None:
            self.writer.write(self.step, means)
        score = means[self.experiment.task.score]
        _LOG.info("step %d: held-out %s %.4f", self.step, self.experiment.task.score, score)
        return score

    def _save(self) -> None:
        if self.writer is not None:
            self.writer.sync()
        self.checkpoints.save(
            self.step,
            self.state,
            data=self.experiment.batches.get_state(),
            config=self.experiment.config,
            progress={"best_step": self.best_step, "best_score": self.best_score},
        )
        self._export(self.state, "last")

    def _export(self, state: TrainState, name: str) -> None:
        with writing(self.workdir / name):
            self.experiment.task.export(state, self.workdir / name)
