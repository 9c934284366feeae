"""Processes that get SIGKILL: alone, during a save, one of two."""

import os
import signal

from tests.faults.fault import TrainingFault, require_killed


class Killed(TrainingFault):
    name = "kill"
    what = "`kill -9` of the one process"

    def strike(self, run, attempt, moments):
        pids = [attempt.number] if run.processes == 1 else attempt.processes(f"--process_id={moments.choice((0, 1))}")
        os.kill(pids[-1], signal.SIGKILL)

    def check_end(self, run, end):
        require_killed(end, processes=run.processes)


class KilledInSave(Killed):
    name = "kill-in-save"
    what = "`kill -9` while a checkpoint is being written"

    def strike(self, run, attempt, moments):
        checkpoints = run.workdir / "checkpoints"
        attempt.wait_until(lambda: any(checkpoints.glob("*orbax-checkpoint-tmp*")), "an unfinished checkpoint")
        super().strike(run, attempt, moments)


class OneOfTwoKilled(Killed):
    name = "kill-one-of-two"
    what = "`kill -9` of one of two processes; `local_cluster.sh` ends the other, and is started again"
    processes = 2


class OneOfTwoKilledInSave(KilledInSave):
    name = "kill-one-of-two-in-save"
    what = "`kill -9` of one of two processes while a checkpoint is being written"
    processes = 2
