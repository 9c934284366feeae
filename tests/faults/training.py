"""A training run that is disturbed again and again, beside an undisturbed one of the same recipe.

Both train the smoke metric on tiny records, or the toy task, which starts in half the time. After every fault the
disturbed one is compared with the other: all that was logged, and every array of its newest checkpoint, bit for bit.
"""

import dataclasses
import itertools
import os
import shlex
import shutil
import sys
from pathlib import Path

from asccl_jax.settings import MetricSettings
from asccl_jax.train.checkpoints.checkpoint_folder import DamagedError
from asccl_jax.weights import FrozenMetric, save_metric
from tests.faults.checkpoints import differing_arrays, newest_step
from tests.faults.processes import PATIENCE_S, Attempt
from tests.faults.trial import require
from tests.launched import ROOT, last_step, losses
from tests.tasks.drawn import drawn_variables
from tests.train.tiny_records import write_tiny_records

CHECKPOINT_EVERY = 3
METRIC, TOY = "asccl_jax.main", "tests.train.toy_training"
"""Modules that train; they know the same flags."""

_WHOLE_RUN_S = 4 * PATIENCE_S
_TOY_PAUSE_S = 0.25
"""Time of a step of the toy: else it would be through before anybody could disturb it."""


@dataclasses.dataclass(frozen=True)
class Materials:
    """What all runs share: records to copy, a metric to start from, and the compiled programs."""

    records: Path
    metric: Path
    compiled: Path

    @classmethod
    def write(cls, folder):
        settings = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(8, 16, 24, 32), image_size=64)
        metric = FrozenMetric(variables=drawn_variables(settings), settings=settings)
        save_metric(folder / "metric", metric)
        return cls(write_tiny_records(folder / "records"), folder / "metric", folder / "compiled")


class TrainingRun:
    """A run in a folder of its own, with data of its own to be damaged.

    Args:
      folder: Where all of it lies; what it writes in `disk`, which may be a small one, its logs and data beside it.
      materials: What it shares with other runs.
      processes: How many train.
      steps: Length of the run.
      devices: Simulated devices of each process.
      program: Module that trains, `METRIC` or `TOY`.
      continues: Another run that it goes on from, as that one lies on the disk.
    """

    def __init__(self, folder, materials, *, processes, steps, devices=1, program=METRIC, continues=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.disk, self.materials, self.steps = folder / "disk", materials, steps
        self.processes, self.devices, self.program = processes, devices, program
        self.workdir, self.records = self.disk / "run", folder / "records"
        shutil.copytree(materials.records, self.records)
        if continues is not None:
            shutil.copytree(continues.workdir, self.workdir)
        self.attempt = None
        self._logs = (folder / "logs" / f"{number:03d}" for number in itertools.count())

    def start(self, *words, around=(), pause_s=_TOY_PAUSE_S):
        """Kills what is running of it and starts its command.

        Args:
          *words: More of them, at the end.
          around: Another module that runs it, and what that is given.
          pause_s: Time of a step of the toy.
        """
        self.end()
        logs = next(self._logs)
        program = [sys.executable, "-m", *map(str, around), self.program]
        words = [*self._words(), *words]
        if self.processes == 1:
            command = [*program, *words]
        else:
            command = [
                "bash",
                "launch/local_cluster.sh",
                self.processes,
                "--grace=2",
                f"--log-dir={logs}",
                "--",
                *words,
            ]
        self.attempt = Attempt(command, logs, environment=_environment(program, self.devices, pause_s))
        return self.attempt

    def running(self):
        """Returns the attempt that is on; starts one if there is none."""
        if self.attempt is None or not self.attempt.is_running():
            self.start()
        return self.attempt

    def end(self):
        if self.attempt is not None:
            self.attempt.end()

    def last_step(self):
        return last_step(self.workdir)

    def newest_checkpoint(self):
        return newest_step(self.workdir / "checkpoints")

    def wait_for_step(self, step):
        self.attempt.wait_until(lambda: self.last_step() >= step, f"step {step}")

    def wait_for_checkpoint(self, step):
        """Waits for a complete checkpoint of a step, or of a later one."""
        self.attempt.wait_until(lambda: self.newest_checkpoint() >= step, f"a checkpoint of step {step}")

    def train_undisturbed(self):
        """Runs the command to its end, all checkpoints kept."""
        end = self.start(f"--config.keep_checkpoints={self.steps}", pause_s=0).finish(patience_s=_WHOLE_RUN_S)
        require(end.status == 0, f"the undisturbed run ended with status {end.status}:\n{end.log[-3000:]}")

    def compare(self, undisturbed):
        """Compares what is logged so far, and the newest checkpoint, with what the undisturbed run has of them."""
        found, expected = losses(self.workdir), losses(undisturbed.workdir)
        require(len(found) <= len(expected), f"{len(found)} lines are logged, {len(expected)} by the undisturbed run")
        for ours, theirs in zip(found, expected, strict=False):
            require(ours == theirs, f"a line differs:\n{ours}\nof the undisturbed run:\n{theirs}")
        step, names = self._compare_checkpoints(undisturbed)
        require(not names, f"checkpoint {step} differs from the undisturbed run's in {', '.join(names[:5])}")

    def _compare_checkpoints(self, undisturbed):
        """Step of the newest checkpoint and names of arrays that differ; a run that is on may remove it meanwhile."""
        while True:
            step = self.newest_checkpoint()
            ours, theirs = (run.workdir / "checkpoints" / str(step) for run in (self, undisturbed))
            try:
                return step, differing_arrays(ours, theirs)
            except DamagedError as error:
                require(not ours.exists() and theirs.exists(), str(error))

    def complete(self, undisturbed):
        """Trains to the last step and compares all that is logged, and the final state."""
        end = self.running().finish(patience_s=_WHOLE_RUN_S)
        require(end.status == 0, f"the last attempt ended with status {end.status}:\n{end.log[-3000:]}")
        self.compare(undisturbed)
        require(losses(self.workdir) == losses(undisturbed.workdir), "it did not log all that the undisturbed run did")
        require(self.newest_checkpoint() == self.steps, f"there is no checkpoint of the last step, {self.steps}")

    def _words(self):
        entries = {
            "data.dir": self.records,
            "init_from": self.materials.metric,
            "compilation_cache_dir": self.materials.compiled,
            "report_groups": 0,
            "steps": self.steps,
            "evaluate_every": max(1, self.steps // 2),
            "checkpoint_every": CHECKPOINT_EVERY,
        }
        words = ["--config=configs/asccl.py:smoke", f"--workdir={self.workdir}"]
        return words + [f"--config.{name}={value}" for name, value in entries.items()]


def _environment(program, devices, pause_s):
    return {
        **os.environ,
        # Half the time to compile, the same mathematics.
        "XLA_FLAGS": f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "TOY_PAUSE_S": str(pause_s),
        # What local_cluster.sh starts; and the modules of this checkout, wherever another one is installed.
        "ASCCL_TRAIN_PROGRAM": shlex.join(program),
        "PYTHONPATH": str(ROOT),
    }
