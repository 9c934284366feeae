"""The run that faults of training strike one after the other, and the undisturbed one beside it."""

import contextlib

from tests.faults.full_disk import small_disk
from tests.faults.training import TrainingRun
from tests.faults.trial import FaultError

_LEFT_AT_LEAST = 30
"""Steps that a fault may need before it has struck and been made up for."""


class Lane:
    """A disturbed run and an undisturbed one of as many processes; a new run is begun where one comes to its end.

    Args:
      folder: Where both lie.
      materials: See `Materials`.
      processes: How many train.
      steps: Length of a run.
      program: Module that trains.
    """

    def __init__(self, folder, materials, *, processes, steps, program):
        self._folder, self._materials = folder, materials
        self._settings = {"processes": processes, "steps": steps, "program": program}
        self._undisturbed = None
        self._run, self._disk = None, contextlib.ExitStack()
        self._begun = 0
        self.completed = 0

    def try_once(self, fault, moments):
        """Returns what a fault cost; where it was not made up for, the next one gets a new run."""
        if self._undisturbed is None:
            undisturbed = TrainingRun(self._folder / "undisturbed", self._materials, **self._settings)
            undisturbed.train_undisturbed()
            self._undisturbed = undisturbed
        if self._run is not None and self._run.last_step() + _LEFT_AT_LEAST > self._run.steps:
            self.complete()
        if self._run is None:
            self._begin()
        try:
            return fault.try_once(self._run, self._undisturbed, moments)
        except FaultError:
            self._give_up()
            raise

    def complete(self):
        """Trains the disturbed run, if there is one, to its end, and compares all of it."""
        if self._run is None:
            return
        try:
            self._run.complete(self._undisturbed)
            self.completed += 1
        finally:
            self._give_up()

    def pause(self):
        """Kills what is running: the next fault starts it again."""
        if self._run is not None:
            self._run.end()

    def close(self):
        self._give_up()

    def _begin(self):
        folder = self._folder / f"disturbed-{self._begun}"
        self._begun += 1
        self._disk.enter_context(small_disk(folder / "disk"))
        self._run = TrainingRun(folder, self._materials, **self._settings)

    def _give_up(self):
        if self._run is not None:
            self._run.end()
        self._run = None
        self._disk.close()
        self._disk = contextlib.ExitStack()
