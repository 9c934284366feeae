"""A watchdog in every process: publishes where this one is, tells who is silent or behind, and ends what has hung.

JAX's own heartbeats tell that a process exists, not that it gets on, and name no host; where they fail it aborts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

from asccl_jax.errors import DivergedError, InputError, WriteError
from asccl_jax.train.faults import ends

__all__ = [
    "Beat",
    "Heartbeat",
    "Limits",
    "Peers",
    "Store",
    "is_lost_peer",
]

# What processes tell each other of themselves, and what one may conclude from it: who is silent, who is behind.

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


# Telling the errors of a collective whose other side is gone from all other errors.

# Gloo (CPU), NCCL (GPU), the coordination service and Orbax's barriers upon it, as their messages begin or go on.
_SIGNS = re.compile(
    r"gloo .*failed|\bnccl|coordination ?service|barrier (failed|timed out|has failed)|heartbeat|socket closed"
    r"|connection (reset|refused|closed)|(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED): ",
    re.IGNORECASE,
)


def is_lost_peer(error: BaseException | None) -> bool:
    """Returns whether an error, or what caused it, says that another process cannot be reached.

    JAX raises them as `ValueError` and as `JaxRuntimeError`, which other troubles share; only the message tells.
    """
    while error is not None:
        known = isinstance(error, (InputError, WriteError))
        if isinstance(error, (ValueError, RuntimeError)) and not known and _SIGNS.search(str(error)):
            return True
        error = error.__cause__
    return False


_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


@runtime_checkable
class Store(Protocol):
    """Values that all processes see; a call may block where the one that keeps them is stuck."""

    def put(self, process: int, text: str) -> None:
        """Sets the value of a process."""
        ...

    def all(self) -> dict[int, str]:
        """Returns the values of all processes that have set one."""
        ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds after which something is said or done.

    Attributes:
      stall_s: Without a new step or phase in this process: it ends. 0: never.
      lost_s: Without a beat of another process: it counts as lost, and this one ends.
      warning_s: The same, for a warning.
      beat_s: Between beats.
    """

    stall_s: float = 600.0
    lost_s: float = 100.0
    warning_s: float = 30.0
    beat_s: float = 2.0


def _end_now(status: int) -> None:
    # The main thread is inside a collective or a loader that never returns: no exception would reach it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Heartbeat:
    """Watches over this process and, through a store, the others; a context, without which it only takes notes.

    Ending is `os._exit` after a line on stderr, as the main thread may be stuck for good. Two threads: the store may
    block, judging must not.

    Args:
      limits: When to say and do what.
      process: Index of this process.
      host: Name of its machine.
      processes: Number of processes.
      store: Where they meet; None for one process alone.
      newest: Returns the step of the newest checkpoint, for the last words.
      clock: Time in seconds.
      end: Ends the process with a status.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        process: int = 0,
        host: str = "",
        processes: int = 1,
        store: Store | None = None,
        newest: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[int], None] = _end_now,
    ) -> None:
        self._limits = limits or Limits()
        self._process, self._store, self._newest = process, store, newest
        self._clock, self._end = clock, end
        # Written by the main thread alone, step by step; what other threads add to a beat is kept apart.
        self._own = Beat(host=host)
        self._count = 0
        self._ended: tuple[int, str] | None = None
        self._watched = True
        now = clock()
        self._moved = self._judged = now
        self._peers = Peers(processes, process, now)
        self._warned: set[int] = set()
        self._lock = threading.Lock()
        self._exchanging = threading.Lock()
        self._finishing = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def step(self, number: int) -> None:
        """Notes that a step has been finished."""
        self._own = dataclasses.replace(self._own, step=number)
        self._moved = self._clock()

    def phase(self, name: str, *, watched: bool = True) -> None:
        """Notes what this process is at now.

        Args:
          name: As a person reads it.
          watched: Whether it must end within the stall limit.
        """
        self._own = dataclasses.replace(self._own, phase=name.replace("_", " "))
        self._moved, self._watched = self._clock(), watched

    def over(self, items: Iterable[_T]) -> Iterator[_T]:
        """Yields items, each of which counts as getting on."""
        for item in items:
            self._moved = self._clock()
            yield item

    def announce(self, status: int, reason: str) -> None:
        """Tells the others that this process ends, so that they end with it and say why.

        The keeper of the store waits until they have heard; with it the store goes.
        """
        self._ended = status, reason
        if self._store is None:
            return
        self._exchange_now()
        deadline = time.monotonic() + 3 * self._limits.beat_s
        while self._process == 0 and status and time.monotonic() < deadline and self._is_anyone_left():
            time.sleep(self._limits.beat_s / 10)

    def _is_anyone_left(self) -> bool:
        """Returns whether another process is still at work, to hear why this one ends."""
        with self._lock:
            return self._peers.is_anyone_left(self._clock(), self._limits.lost_s)

    def _exchange_now(self) -> None:
        # On a thread of its own: the store may block.
        exchanging = threading.Thread(target=self.exchange, daemon=True)
        exchanging.start()
        exchanging.join(self._limits.beat_s)

    def exchange(self) -> None:
        """Publishes this process's beat and reads the others'."""
        if self._store is None:
            return
        with self._exchanging:
            self._count += 1
            ended, reason = self._ended or (None, "")
            beat = dataclasses.replace(self._own, count=self._count, ended=ended, reason=reason)
            try:
                self._store.put(self._process, beat.to_text())
                texts = self._store.all()
            except RuntimeError as error:
                # The keeper is gone, or leaving: its silence will tell, and JAX ends this process as well.
                _LOG.debug("no beat: %s", error)
                return
        with self._lock:
            self._peers.note(texts, self._clock())

    def judge(self) -> None:
        """Looks once at how everyone gets on, and warns or ends the process."""
        now = self._clock()
        with self._lock:
            gap = now - self._judged
            self._judged = now
            # This process itself was stopped meanwhile (Ctrl-Z, a starved machine): nobody else is to blame.
            if gap > 5 * self._limits.beat_s:
                self._peers.forgive(gap)
                self._moved += gap
            gone = self._peers.ended(now, 2 * self._limits.beat_s)
            lost = self._peers.silent(now, self._limits.lost_s)
            quiet = set(self._peers.silent(now, self._limits.warning_s))
        if gone is not None:
            self._finish(self._peers.beat(gone).ended or ends.TEMPORARY, self._last_words_of(gone))
        elif lost:
            self._finish(ends.TEMPORARY, self._lost(lost, self._limits.lost_s))
        elif self._limits.stall_s and self._watched and now - self._moved >= self._limits.stall_s:
            self._finish(ends.TEMPORARY, self._stalled())
        for process in sorted(quiet - self._warned):
            _LOG.warning(
                "%s has not been heard of for %g s; last %s",
                *(self._peers.name(process), self._limits.warning_s, self._peers.beat(process).place),
            )
        for process in sorted(self._warned - quiet):
            _LOG.warning("%s is heard of again, %s", self._peers.name(process), self._peers.beat(process).place)
        self._warned = quiet

    def end_if_others_wait(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process where an error is its own, or another one is gone: an exit callback for `ExitStack.push`.

        Unwinding further would close the checkpoints, which waits for all processes, for minutes; and those wait for
        this one in a collective.
        """
        del kind, trace
        self._end_if_peer_lost(error)
        if self._store is None or not isinstance(error, Exception) or isinstance(error, DivergedError):
            return
        status, reason = _status_and_reason(error)
        if status == ends.CRASHED:
            traceback.print_exception(error)
        self._finish(status, reason)

    def _end_if_peer_lost(self, error: BaseException | None) -> None:
        if error is None or self._store is None or not is_lost_peer(error):
            return
        # One that ended by itself has said why. Of several, those that are alive beat again meanwhile; one alone may be
        # back before it is missed, and then JAX aborts this process.
        self._exchange_now()
        until = time.monotonic() + 3 * self._limits.beat_s
        silent: list[int] = []
        while time.monotonic() < until and not silent:
            if (gone := self._peers.ended(self._clock(), 0.0)) is not None:
                self._finish(self._peers.beat(gone).ended or ends.TEMPORARY, self._last_words_of(gone))
            if (only := self._peers.only_other()) is not None:
                silent = [only]
                break
            time.sleep(self._limits.beat_s / 10)
            silent = self._peers.silent(self._clock(), 2.5 * self._limits.beat_s)
        first = str(error).splitlines()[0].strip()
        who = ", ".join(map(self._peers.name, silent)) or "contact with another process"
        self._finish(ends.TEMPORARY, f"lost {who}, {self._own.place}: {first}")

    def __enter__(self) -> Heartbeat:
        self._moved = self._judged = self._clock()
        self.exchange()
        works = {"judge": self.judge} if self._store is None else {"beat": self.exchange, "judge": self.judge}
        for name, work in works.items():
            thread = threading.Thread(target=self._repeat, args=(work,), name=f"heartbeat-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, trace
        self._end_if_peer_lost(error)
        self._closing.set()
        for thread in self._threads:
            thread.join(2 * self._limits.beat_s)
        if self._ended is None:
            self.announce(*_status_and_reason(error))

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._closing.wait(self._limits.beat_s):
            work()

    def _finish(self, status: int, message: str) -> None:
        # Judge and main thread may find out at once; whoever comes second waits for the end here.
        with self._finishing:
            cured = "" if ends.is_worth_a_restart(status) else "once that is mended, "
            after = f"; {cured}the same command goes on from there"
            sys.stderr.write(f"error: training stopped: {message}; {self._what_is_safe()}{after}\n")
            sys.stderr.flush()
            self.announce(status, message)
            self._end(status)

    def _what_is_safe(self) -> str:
        # On a thread of its own: the disk may be what hangs.
        found: list[int | None] = []

        def look() -> None:
            with contextlib.suppress(InputError, OSError):
                found.append(self._newest())

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(5)
        if not found:
            return "the checkpoints cannot be read now"
        return f"checkpoint {found[0]} is whole" if found[0] is not None else "there is no checkpoint yet"

    def _last_words_of(self, process: int) -> str:
        return f"{self._peers.name(process)} has ended: {self._peers.beat(process).reason}"

    def _lost(self, processes: list[int], seconds: float) -> str:
        each = [f"{self._peers.name(process)}, last {self._peers.beat(process).place}" for process in processes]
        return f"lost {'; '.join(each)}: not heard of for {seconds:g} s (--heartbeat_timeout)"

    def _stalled(self) -> str:
        alone = self._store is None
        where = f"this process is still {self._own.place}" if alone else self._peers.who_is_behind()
        return (
            f"nothing moved for {self._limits.stall_s:g} s: {where}; if it was only slow, give a longer --stall_timeout"
        )


def _status_and_reason(error: BaseException | None) -> tuple[int, str]:
    """Returns how a process ends that leaves with an error or without."""
    if error is None:
        return 0, "done"
    first: Any = (str(error).splitlines() or [""])[0]
    if isinstance(error, InputError):
        return ends.BAD_INPUT, first
    if isinstance(error, (WriteError, DivergedError)):
        return ends.FAILED, first
    return ends.CRASHED, f"{type(error).__name__}: {first}"
