"""A run that is killed and goes on with another number of processes or devices."""

import shutil
import tempfile
import time
from pathlib import Path

from tests.faults.killed import Killed
from tests.faults.tolerance import differing_scalars
from tests.faults.training import TrainingRun
from tests.faults.trial import require
from tests.launched import losses


class MoreKilled(Killed):
    """A copy goes on with more, within tolerance; the run itself stays as it was, to be compared bit for bit."""

    name = "one-becomes-two"
    what = "`kill -9` of one process; two go on, or one with two devices"
    _others = ({"processes": 2}, {"processes": 1, "devices": 2})

    def strike(self, run, attempt, moments):
        self._other = moments.choice(self._others)
        super().strike(run, attempt, moments)

    def recover(self, run, undisturbed, reached):
        folder = Path(tempfile.mkdtemp(dir=run.materials.records.parent))
        copy = TrainingRun(folder, run.materials, steps=run.steps, program=run.program, continues=run, **self._other)
        try:
            begin_s = time.monotonic()
            copy.start()
            copy.wait_for_step(reached + 1)
            seconds = time.monotonic() - begin_s
            copy.wait_for_checkpoint(reached + 1)
        finally:
            copy.end()
        found = losses(copy.workdir)
        phrases = differing_scalars(found, losses(undisturbed.workdir)[: len(found)])
        require(not phrases, f"{self._other} went too far off: {'; '.join(phrases[:5])}")
        shutil.rmtree(folder)
        return seconds


class FewerKilled(MoreKilled):
    name = "two-become-one"
    what = "`kill -9` of one of two processes; one goes on, with one device or with two"
    processes = 2
    _others = ({"processes": 1}, {"processes": 1, "devices": 2})
