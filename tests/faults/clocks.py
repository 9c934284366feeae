"""Clocks that are an hour off: steps, not times, order lines and choose checkpoints."""

import os

from tests.faults.killed import Killed
from tests.faults.training import CHECKPOINT_EVERY

_HOUR_S = 3600


class WrongClock(Killed):
    name = "clock-off"
    what = "a clock an hour fast or slow for one attempt, checkpoints stamped in the wrong order, then `kill -9`"

    def begin(self, run, moments):
        return run.start(around=("tests.faults.skewed_clock", moments.choice((-_HOUR_S, _HOUR_S))))

    def strike(self, run, attempt, moments):
        run.wait_for_step(run.last_step() + CHECKPOINT_EVERY)
        super().strike(run, attempt, moments)

    def mend(self, run):
        folders = [path for path in (run.workdir / "checkpoints").iterdir() if path.name.isdigit()]
        for folder in folders:
            os.utime(folder, (10**9 - int(folder.name),) * 2)  # the newest looks the oldest


class ClocksDiffer(WrongClock):
    name = "clocks-differ"
    what = "clocks of two processes an hour apart for one attempt, then `kill -9` of one"
    processes = 2
