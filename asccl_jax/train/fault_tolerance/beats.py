"""What processes tell each other of themselves, and what one may conclude from it: who is silent, who is behind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping

__all__ = ["Beat", "Peers"]

WAITING_FOR_OTHERS = ("training", "waiting for device", "evaluating", "saving")
"""Phases in which a process meets the others: found in one of them, it may be the one that waits."""


@dataclasses.dataclass(frozen=True)
class Beat:
    """One process's word on itself.

    Attributes:
      host: Name of its machine.
      step: Last finished step; None before the first state is there.
      phase: What it is at.
      count: Goes up with each word, so that it differs from the one before even where nothing else has changed.
      ended: Exit status it ends with; None while it runs.
      reason: Why it ends.
    """

    host: str = ""
    step: int | None = None
    phase: str = "starting"
    count: int = 0
    ended: int | None = None
    reason: str = ""

    def to_text(self) -> str:
        """Returns it as the store holds it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Beat:
        """Returns what `to_text` was made of."""
        return cls(**json.loads(text))

    @property
    def place(self) -> str:
        """Where it is, as "at step 120 (training)"."""
        return f"at {f'step {self.step}' if self.step is not None else 'no step yet'} ({self.phase})"


class Peers:
    """The last beats of all processes and when each was seen to change.

    Ages are measured by this process's clock from the change of a value, so the clocks of machines need not agree.

    Args:
      processes: Number of processes.
      process: Index of this one.
      now: Time from which on silence counts.
    """

    def __init__(self, processes: int, process: int, now: float) -> None:
        self._me = process
        self._beats = dict.fromkeys(range(processes), Beat())
        self._changed = dict.fromkeys(range(processes), now)

    def note(self, texts: Mapping[int, str], now: float) -> None:
        """Takes over the values that the store holds now."""
        for process, text in texts.items():
            beat = Beat.from_text(text)
            if beat != self._beats[process]:
                self._beats[process], self._changed[process] = beat, now

    def forgive(self, seconds: float) -> None:
        """Takes time off all ages in which this process itself was not running."""
        for process in self._changed:
            self._changed[process] += seconds

    def silent(self, now: float, seconds: float) -> list[int]:
        """Returns the processes without a sign of life for so long.

        Where this process's own beats do not come back either, nobody can be heard: then it is the keeper of the store,
        process 0, that is silent.
        """
        late = [process for process, changed in self._changed.items() if now - changed >= seconds]
        if self._me in late:
            return [] if self._me == 0 else [0]
        return [process for process in late if self._beats[process].ended is None]

    def ended(self, now: float, grace: float) -> int | None:
        """Returns the first process that ended with a failure and said so at least `grace` seconds ago, or None."""
        for process, beat in self._beats.items():
            if process != self._me and beat.ended and now - self._changed[process] >= grace:
                return process
        return None

    def is_anyone_left(self, now: float, lost_s: float) -> bool:
        """Returns whether any other process is still at work: neither ended nor silent for so long."""
        lost = self.silent(now, lost_s)
        others = {process: beat for process, beat in self._beats.items() if process != self._me}
        return any(beat.ended is None and process not in lost for process, beat in others.items())

    def only_other(self) -> int | None:
        """Returns the other one of two processes; None where there are more."""
        others = [process for process in self._beats if process != self._me]
        return others[0] if len(others) == 1 else None

    def beat(self, process: int) -> Beat:
        """Returns the last beat of a process."""
        return self._beats[process]

    def name(self, process: int) -> str:
        """Returns what to call a process: its index, and its host where it is known."""
        host = self._beats[process].host
        return f"process {process} (host {host})" if host else f"process {process}"

    def who_is_behind(self) -> str:
        """Returns a sentence on which processes the others wait for, by their last words."""
        first = min(self._step(process) for process in self._beats)
        behind = [process for process in self._beats if self._step(process) == first]
        elsewhere = [process for process in behind if self._beats[process].phase not in WAITING_FOR_OTHERS]
        behind = elsewhere or behind
        others = [process for process in self._beats if process not in behind]
        if not others:
            return f"all processes are {self._places(behind)}"
        waiting = ", ".join(f"{self.name(process)}, {self._beats[process].place}" for process in behind[:4])
        more = f", and {len(behind) - 4} more" if len(behind) > 4 else ""
        return f"waiting for {waiting}{more}; the others are {self._places(others)}"

    def _step(self, process: int) -> int:
        step = self._beats[process].step
        return -1 if step is None else step

    def _places(self, processes: Iterable[int]) -> str:
        return ", ".join(sorted({self._beats[process].place for process in processes}))
