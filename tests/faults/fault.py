"""A fault of a training run: the moment, the blow, the end that is expected of it, and the way back."""

import abc
import signal
import time

from asccl_jax.train.faults import ends
from tests.faults.training import CHECKPOINT_EVERY
from tests.faults.trial import Trial, require

SIGNALLED = 128


class TrainingFault(abc.ABC):
    """Strikes a run at a random moment and sees to it that the same command makes up for it.

    Attributes:
      name: Of the scenario, as `--only` takes it.
      what: What is done, for the table.
      processes: How many train in the run that it strikes.
      needs_metric: Whether the toy does not do, which has neither records nor a learning rate.
    """

    name: str
    what: str
    processes = 1
    needs_metric = False
    unit = "step"

    def begin(self, run, moments):
        """Sees to it that the run is on and returns its attempt; a fault that is there from the start comes here."""
        del moments
        return run.running()

    @abc.abstractmethod
    def strike(self, run, attempt, moments):
        """Does it, at a random moment; returns when the attempt is going to end of it."""

    @abc.abstractmethod
    def check_end(self, run, end):
        """Sees to it that the attempt ended as it should, and that nothing was lost that need not be."""

    def mend(self, run):
        """Takes away the cause, where it is not gone with the attempt."""
        del run

    def recover(self, run, undisturbed, reached):
        """Gives the same command again; returns the seconds until it was beyond where the run had been."""
        checkpoint, begin_s = run.newest_checkpoint(), time.monotonic()
        attempt = run.start()
        run.wait_for_step(reached + 1)
        seconds = time.monotonic() - begin_s
        from_there = f"going on from checkpoint {checkpoint} in"
        require(not checkpoint or from_there in attempt.log(), f"it did not go on from checkpoint {checkpoint}")
        run.wait_for_checkpoint(reached + 1)
        run.compare(undisturbed)
        return seconds

    def get_over(self, run, undisturbed, attempt):
        """Returns the `Trial` of a fault that has just struck an attempt."""
        begin_s = time.monotonic()
        end = attempt.finish()
        seconds = time.monotonic() - begin_s
        attempt.end()  # what a launcher may have left
        self.check_end(run, end)
        reached, checkpoint = run.last_step(), run.newest_checkpoint()
        self.mend(run)
        seconds += self.recover(run, undisturbed, reached)
        return Trial(self.name, reached - checkpoint, seconds, f"step {reached}, checkpoint {checkpoint}")

    def try_once(self, run, undisturbed, moments):
        """Returns what the fault cost the run; raises `FaultError` where something is not as it should be."""
        attempt = self.begin(run, moments)
        run.wait_for_step(run.last_step() + moments.randint(1, CHECKPOINT_EVERY + 1))
        time.sleep(moments.uniform(0, 0.3))
        self.strike(run, attempt, moments)
        return self.get_over(run, undisturbed, attempt)


def require_killed(end, *, processes):
    """The end of a process that got SIGKILL; of the launcher of several, which may hear of the survivor first."""
    survivors = (ends.TEMPORARY, SIGNALLED + signal.SIGABRT)  # see launch/README.md
    expected = (-signal.SIGKILL,) if processes == 1 else (SIGNALLED + signal.SIGKILL, *survivors)
    require(end.status in expected, f"ended with status {end.status} of SIGKILL:\n{end.log[-3000:]}")


def require_clear_stop(end, status, *words):
    """One line that says it all, and the right status."""
    require(end.status == status, f"ended with status {end.status}, expected {status}:\n{end.log[-3000:]}")
    require(len(end.errors) == 1, f"lines of error: {end.errors}, expected one:\n{end.log[-3000:]}")
    (line,) = end.errors
    for word in words:
        require(word in line, f"{word!r} is not in the line of error: {line}")
    require("Traceback" not in end.log, f"a traceback besides the line of error:\n{end.log[-3000:]}")
