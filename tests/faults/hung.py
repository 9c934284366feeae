"""A process that hangs for good, and processes that start again by themselves."""

import os
import re
import signal
import time

from asccl_jax.train.faults import ends
from tests.faults.fault import TrainingFault, require_clear_stop
from tests.faults.killed import OneOfTwoKilled
from tests.faults.trial import Trial

_HEARTBEAT_S = 20
"""Long enough for a busy machine, on which a process that is well may not come to say so for seconds."""


class OneOfTwoHangs(TrainingFault):
    name = "hang-one-of-two"
    what = f"one of two processes stops for good (SIGSTOP), with `--heartbeat_timeout={_HEARTBEAT_S}`"
    processes = 2

    def begin(self, run, moments):
        return run.start(f"--heartbeat_timeout={_HEARTBEAT_S}")

    def strike(self, run, attempt, moments):
        (pid,) = attempt.processes(f"--process_id={moments.choice((0, 1))}")
        os.kill(pid, signal.SIGSTOP)

    def check_end(self, run, end):
        require_clear_stop(end, ends.TEMPORARY)


class OneOfTwoRestarts(OneOfTwoKilled):
    """Nobody gives the command again: both come back by themselves, in the attempt that is on."""

    name = "restart-one-of-two"
    what = f"`kill -9` of one of two processes, with `--max_restarts=3 --heartbeat_timeout={_HEARTBEAT_S}`"

    def begin(self, run, moments):
        return run.start("--max_restarts=3", f"--heartbeat_timeout={_HEARTBEAT_S}")

    def get_over(self, run, undisturbed, attempt):
        begin_s, before, reached = time.monotonic(), len(_starts(attempt)), 0

        def are_back():
            nonlocal reached
            reached = max(reached, run.last_step())  # the survivor may log one more step
            return len(_starts(attempt)) > before

        attempt.wait_until(are_back, "both processes coming back")
        run.wait_for_step(reached + 1)
        seconds = time.monotonic() - begin_s
        run.wait_for_checkpoint(reached + 1)
        run.compare(undisturbed)
        run.end()  # it would get over the next fault by itself, too
        checkpoint = _starts(attempt)[-1]
        return Trial(self.name, reached - checkpoint, seconds, f"step {reached}, checkpoint {checkpoint}")


def _starts(attempt):
    """Checkpoints from which the first process went on, start by start."""
    return [int(step) for step in re.findall(r"going on from checkpoint (\d+) in", attempt.log())]
