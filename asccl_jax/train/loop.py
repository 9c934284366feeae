"""The training loop, the same for every task: update, log, evaluate, save, stop politely, go on exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from asccl_jax.buckets import AnyPath, reading
from asccl_jax.data.test_speakers import write_speakers
from asccl_jax.errors import DivergedError, InputError, WriteError, writing
from asccl_jax.tasks import Scalars, Task
from asccl_jax.train.checkpoints.checkpoint import Checkpoints, abandoned_io_unheard, newest_on_disk
from asccl_jax.train.evaluation import Scorer
from asccl_jax.train.experiment import Experiment, FitResult
from asccl_jax.train.faults.heartbeat import Heartbeat
from asccl_jax.train.faults.signals import StopSignals
from asccl_jax.train.run.clock import Phase, Progress, RunClock, StepTimes, gather_figures
from asccl_jax.train.run.profile import ProfiledSteps, Profiler
from asccl_jax.train.run.run_config import note_config
from asccl_jax.train.run.run_mirror import CHECKPOINTS, RunMirror
from asccl_jax.train.run.writer import NonFiniteError, ScalarQueue, ScalarWriter, check_finite
from asccl_jax.train.runtime import gather_rows
from asccl_jax.train.sharding import (
    copy_to_all,
    data_mesh,
    distribute,
    gather_whole,
    place,
    sharded_update,
    state_sharding,
)
from asccl_jax.types import TrainState

__all__ = ["fit"]

_LOG = logging.getLogger(__name__)


def fit(
    experiment: Experiment,
    workdir: Path,
    *,
    profile: ProfiledSteps | None = None,
    mirror: RunMirror | None = None,
    heartbeat: Heartbeat | None = None,
) -> FitResult:
    """Trains to the last step, from the newest checkpoint in `workdir` if there is one, and returns how it ended.

    Writes `config.json` (see `run_config`), `metrics.jsonl`, `tensorboard/`, `pictures/` (where the task draws any),
    `checkpoints/`, and through the task's `export` `initial/` (before training), `best/` (lowest held-out score) and
    `last/`.

    Args:
      experiment: What to train and on what.
      workdir: Folder of the run.
      profile: Steps to trace, into `profile/`.
      mirror: The run in a bucket whose files are in `workdir`; its checkpoints go to the bucket.
      heartbeat: Is told of every step and phase, and ends the process where another one is lost.

    Raises:
      InputError: The checkpoint there is of another network or config, or the data is broken.
      DivergedError: A scalar became NaN or infinite. The checkpoints on disk are from before that.
      WriteError: The disk is full, or access is denied. The checkpoints on disk are whole.
    """
    try:
        return _fit(experiment, workdir, profile, mirror, heartbeat or Heartbeat())
    except WriteError as error:
        safe = _newest_good(workdir / CHECKPOINTS if mirror is None else mirror.checkpoints)
        remedy = "make room" if mirror is None else f"see that {mirror.address} can be written"
        raise WriteError(
            f"training stopped: {error}; {safe}: {remedy} and give the same command, which goes on from there"
        ) from error


def _newest_good(checkpoints: AnyPath) -> str:
    try:
        with reading(str(checkpoints)):
            good = newest_on_disk(checkpoints)
    except InputError:
        return "its checkpoints are out of sight"
    return f"checkpoint {good} is whole" if good is not None else "there is no checkpoint yet"


def _fit(
    experiment: Experiment,
    workdir: Path,
    profile: ProfiledSteps | None,
    mirror: RunMirror | None,
    heartbeat: Heartbeat,
) -> FitResult:
    # Saves go on in the background: what they say after one has failed may come at any time.
    with abandoned_io_unheard(), contextlib.ExitStack() as stack:
        stack.callback(experiment.batches.close)
        run = _Run(experiment, workdir, stack, profile, mirror, heartbeat)
        stack.push(heartbeat.end_if_others_wait)
        try:
            stopped_by = run.train()
        except NonFiniteError as error:
            run.checkpoints.wait()
            good = run.checkpoints.latest_step()
            safe = f"checkpoint {good} and last/ are good" if good is not None else "there is no checkpoint yet"
            raise DivergedError(
                f"training stopped: {error}; {safe} in {mirror.address if mirror else workdir}; go on with the same"
                " command and, say, half the learning rate,"
                f" --config.learning_rate={experiment.config.get('learning_rate', 1e-3) / 2:g}"
            ) from error
        return run.result(stopped_by)


class _Run:
    """One process's part of a run: what changes from step to step, and the files it goes to."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: Path,
        stack: contextlib.ExitStack,
        profile: ProfiledSteps | None,
        mirror: RunMirror | None,
        heartbeat: Heartbeat,
    ) -> None:
        settings = experiment.settings
        self.heartbeat = heartbeat
        self.clock = stack.enter_context(contextlib.closing(RunClock(heartbeat.phase)))
        self.times = StepTimes(self.clock, gather=gather_rows)
        self.experiment = experiment
        self.workdir = workdir
        self.mirror = mirror
        self.mesh = data_mesh(settings.batch_size, fsdp=settings.fsdp, accumulation=settings.accumulation)
        self.abstract_state = jax.eval_shape(experiment.task.init, jax.random.key(settings.seed))
        self.sharding = state_sharding(self.abstract_state, self.mesh)
        self.checkpoints = Checkpoints(
            mirror.checkpoints if mirror else workdir / CHECKPOINTS,
            keep=settings.keep_checkpoints,
            keep_every=settings.keep_every,
        )
        stack.callback(self.checkpoints.close)
        self.step = 0
        self.best_step: int | None = None
        self.best_score: float | None = None
        self.scored: tuple[int, float] | None = None
        self.made_with: dict[str, Any] | None = None
        self.state = self._first_state()
        self.first_step = self.step
        self.saved = 0
        self.profiler = stack.enter_context(contextlib.closing(Profiler(profile, workdir, begun=self.step)))
        main_process = jax.process_index() == 0
        if main_process:
            note_config(workdir, experiment.config, made_with=self.made_with, step=self.step, steps=settings.steps)
            if self.step < settings.steps:
                with writing(workdir):
                    write_speakers(workdir, experiment.speakers, experiment.config, goes_on=self.step > 0)
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
            times=self.times,
        )
        stack.callback(self.progress.close)
        self._on_devices: dict[Task, Task] = {}
        self._compiled: set[Task] = set()
        self._update = sharded_update(self.mesh, self.sharding)
        self.scorer = Scorer(self._placed(experiment.task), lambda: heartbeat.over(experiment.held_out()), self.mesh)

    def _first_state(self) -> TrainState:
        """Takes the first there is of: 1. the newest checkpoint of this workdir, 2. the task's own start."""
        task, key = self.experiment.task, jax.random.key(self.experiment.settings.seed)
        restored = self.checkpoints.restore(self.abstract_state, config=self.experiment.config, sharding=self.sharding)
        if restored is None:
            return distribute(task.init(key), self.sharding)
        self.experiment.batches.set_state(restored.data)
        self.step = int(restored.state.step)
        self.made_with = restored.config
        self.best_step = restored.progress["best_step"]
        self.best_score = restored.progress["best_score"]
        self.heartbeat.step(self.step)
        _LOG.info("going on from checkpoint %d in %s", self.step, self.checkpoints.directory)
        return restored.state

    def train(self) -> signal.Signals | None:
        """Runs all steps that are left; returns the signal that ended it early, or None."""
        settings = self.experiment.settings
        scalars = ScalarQueue()
        if self.step == 0:
            with self.clock.phase(Phase.EVALUATING):
                self._score_baseline()
        self.clock.turn_to(Phase.TRAINING)
        while self.step < settings.steps:
            values, compiled = self._take_step()
            fetched = self._log_all(scalars.push(self.step, values))
            stopped_by = self.stop.requested(self.step)
            evaluate = self.step % settings.evaluate_every == 0 or self.step == settings.steps
            save = self.step % settings.checkpoint_every == 0 or self.step == settings.steps or stopped_by is not None
            # What processes gather for a line of scalars must not cross the collectives of steps in flight.
            gather = self.step % settings.log_every == 0 and jax.process_count() > 1
            if evaluate or save or compiled or gather:
                # Nothing is judged or saved before all steps up to here are known to be finite.
                fetched += self._log_all(scalars.drain())
            self.times.end(compiled=compiled, fetched=fetched)
            self.profiler.end_step(self.step, self.state)
            if evaluate:
                with self.clock.phase(Phase.EVALUATING):
                    self._evaluate()
            if save:
                with self.clock.phase(Phase.SAVING):
                    self._save()
            if stopped_by is not None:
                return stopped_by
        return None

    def result(self, stopped_by: signal.Signals | None) -> FitResult:
        """Returns how the run ended, once all of it is on disk; all processes must call it together."""
        with self.clock.phase(Phase.SAVING):
            self.checkpoints.wait()
        processes = gather_figures(self.times)
        self.clock.settle()
        return FitResult(
            step=self.step,
            stopped_by=stopped_by,
            best_step=self.best_step,
            best_score=self.best_score,
            steps_per_s=self.times.steps_per_s,
            seconds=sum(self.clock.seconds.values()),
            first_step=self.first_step,
            batch_size=self.experiment.settings.batch_size,
            unit=self.experiment.unit,
            phase_s=dict(self.clock.seconds),
            checkpoints=self.saved,
            processes=processes,
        )

    def _take_step(self) -> tuple[Scalars, bool]:
        """Starts the next step; returns its scalars and whether its update had to be compiled."""
        known = len(self._compiled)
        # The first batch comes late, as the threads that read ahead have only begun.
        waiting = Phase.INPUT if self.step > self.first_step else Phase.STARTING
        with self.profiler.step(self.step + 1, self.state):
            self.times.begin()
            with self.clock.phase(waiting):
                rows = next(self.experiment.batches)
            with self.clock.phase(Phase.PLACING):
                batch = place(rows, self.mesh)
            self.state, values = self._update(self._task_now(), self.state, batch)
        self.step += 1
        self.heartbeat.step(self.step)
        return values, len(self._compiled) > known

    def _task_now(self) -> Task:
        """The task whose update the step that comes now takes, its frozen networks on the devices."""
        task_at = self.experiment.task_at
        task = self.experiment.task if task_at is None else task_at(self.step)
        if task not in self._compiled:
            self.heartbeat.phase("compiling")
            self._compiled.add(task)
        return self._placed(task)

    def _placed(self, task: Task) -> Task:
        if task not in self._on_devices:
            self._on_devices[task] = copy_to_all(task, self.mesh)
        return self._on_devices[task]

    def _log_all(self, ended: Iterable[tuple[int, dict[str, float]]]) -> int:
        """Logs steps as they end; returns how many."""
        count = 0
        with self.clock.phase(Phase.DEVICE):
            for step, values in ended:
                with self.clock.phase(Phase.TRAINING):
                    self._log(step, values)
                count += 1
        return count

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.progress.advance(step, values[self.experiment.task.loss])
        if step % self.experiment.settings.log_every == 0:
            speeds = self.times.scalars()
            speeds[f"speed/{self.experiment.unit}s_per_s"] = self.progress.examples_per_s
            if self.writer is not None:
                self.writer.write(step, {**values, **speeds})

    def _score_baseline(self) -> None:
        baseline = self.experiment.baseline(self._whole(), self.mesh)
        self._score(baseline)
        self._export(baseline, "initial")

    def _evaluate(self) -> None:
        whole = self._whole()
        score = self._score(whole)
        self.scored = self.step, score
        if self.writer is not None and self.experiment.pictures is not None:
            self.writer.write_pictures(self.step, self.experiment.pictures(whole))
        if self.best_score is None or score < self.best_score:
            self.best_step, self.best_score = self.step, score
            self._export(whole, "best")

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
        if self.mirror is not None:
            self.mirror.send()
        self.checkpoints.save(
            self.step,
            self.state,
            data=self.experiment.batches.get_state(),
            config=self.experiment.config,
            progress={
                "best_step": self.best_step,
                "best_score": self.best_score,
                "score": self.scored[1] if self.scored and self.scored[0] == self.step else None,
            },
        )
        self.saved += 1
        self._export(self._whole(), "last")
        if self.mirror is not None:
            self.mirror.send()

    def _whole(self) -> TrainState:
        """The networks whole on every device, without their optimisers: what is scored, drawn and exported."""
        return gather_whole(dataclasses.replace(self.state, opt_state=()), self.mesh)

    def _export(self, state: TrainState, name: str) -> None:
        with writing(self.workdir / name):
            self.experiment.task.export(state, self.workdir / name)
