"""Processes that are asked to stop, and one that hangs."""

import os
import signal

from tests.faults.fault import SIGNALLED, TrainingFault
from tests.faults.trial import require


class OneOfTwoTerminated(TrainingFault):
    name = "sigterm-one-of-two"
    what = "SIGTERM to one of two processes: both stop at one step"
    processes = 2

    def strike(self, run, attempt, moments):
        (pid,) = attempt.processes(f"--process_id={moments.choice((0, 1))}")
        os.kill(pid, signal.SIGTERM)

    def check_end(self, run, end):
        require(end.status == SIGNALLED + signal.SIGTERM, f"ended with {end.status} of SIGTERM:\n{end.log[-3000:]}")
        require(run.newest_checkpoint() == run.last_step(), "the step at which it stopped has not been saved")
