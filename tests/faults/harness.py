"""All scenarios by name, and what tries them one after the other on the runs they need."""

import random

from tests.faults.clocks import ClocksDiffer, WrongClock
from tests.faults.damaged_data import FlippedBytes, LostShard
from tests.faults.elastic import FewerKilled, MoreKilled
from tests.faults.full_disk import FullWhileLogging, FullWhileSaving, OneOfTwoIsFull
from tests.faults.hung import OneOfTwoHangs, OneOfTwoRestarts
from tests.faults.killed import Killed, KilledInSave, OneOfTwoKilled, OneOfTwoKilledInSave
from tests.faults.lane import Lane
from tests.faults.not_finite import Diverged
from tests.faults.preparation import PreparationFault, PrepareKilled, ReconstructKilled
from tests.faults.stopped import OneOfTwoTerminated
from tests.faults.training import METRIC, TOY, Materials

KINDS = (
    Killed,
    KilledInSave,
    FullWhileSaving,
    FullWhileLogging,
    FlippedBytes,
    LostShard,
    Diverged,
    WrongClock,
    MoreKilled,
    OneOfTwoKilled,
    OneOfTwoKilledInSave,
    OneOfTwoRestarts,
    OneOfTwoTerminated,
    OneOfTwoIsFull,
    OneOfTwoHangs,
    ClocksDiffer,
    FewerKilled,
    PrepareKilled,
    ReconstructKilled,
)
FAULTS = {kind.name: kind for kind in KINDS}


class Harness:
    """Tries faults; what they need is made when first needed, in a folder that is the caller's to remove.

    Args:
      folder: Where everything lies.
      seed: Of the random moments.
      steps: Length of the training runs.
      toy: Whether the toy is trained wherever it does.
    """

    def __init__(self, folder, *, seed, steps, toy=False):
        self._folder, self._steps, self._toy = folder, steps, toy
        self._moments = random.Random(seed)
        self._faults = {}
        self._materials = None
        self._lanes = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for lane in self._lanes.values():
            lane.close()

    def try_once(self, name):
        """Returns the `Trial` of a fault; raises `FaultError` where it was not made up for."""
        fault = self._faults.setdefault(name, FAULTS[name]())
        if isinstance(fault, PreparationFault):
            self._pause_all_but(None)
            return fault.try_once(self._folder / name, self._moments)
        lane = self._lane(fault.processes, TOY if self._toy and not fault.needs_metric else METRIC)
        self._pause_all_but(lane)
        return lane.try_once(fault, self._moments)

    def complete(self):
        """Trains all disturbed runs to their ends; returns how many ends were those of undisturbed runs in all."""
        for lane in self._lanes.values():
            self._pause_all_but(lane)
            lane.complete()
        return sum(lane.completed for lane in self._lanes.values())

    def _pause_all_but(self, wanted):
        for lane in self._lanes.values():
            if lane is not wanted:
                lane.pause()

    def _lane(self, processes, program):
        if self._materials is None:
            self._materials = Materials.write(self._folder)
        if (processes, program) not in self._lanes:
            folder = self._folder / f"{program}-{processes}"
            self._lanes[processes, program] = Lane(
                folder, self._materials, processes=processes, steps=self._steps, program=program
            )
        return self._lanes[processes, program]
