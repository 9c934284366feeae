"""Preparations on several workers that are killed again and again, and end with the bytes of an undisturbed one."""

import abc
import contextlib
import os
import signal
import sys
import time

from asccl_jax.data.manifest import MANIFEST_NAME
from asccl_jax.data.records import file_sha256
from tests.data_prep.reconstruct.tiny_clips import write_clip as write_drawn_clip
from tests.data_prep.reconstruct.tiny_clips import write_list
from tests.data_prep.tiny_media import write_clip, write_table
from tests.faults.processes import Attempt
from tests.faults.trial import Trial, require
from tests.launched import ROOT


class PreparationFault(abc.ABC):
    """Kills a command that makes files at random moments, with its workers or without them, until it gets through.

    Attributes:
      name: Of the scenario, as `--only` takes it.
      what: What is done, for the table.
      kills: How often at most.
      tasks: How many at most are finished between two kills.
    """

    name: str
    what: str
    kills = 3
    unit = "task"
    tasks: int

    def __init__(self):
        self._inputs = None
        self._tries = 0

    @abc.abstractmethod
    def write_inputs(self, folder):
        """Writes what the command reads into a new folder; returns what it is to be given."""

    @abc.abstractmethod
    def command(self, inputs, output, workers):
        """Returns the words after `python -m`."""

    def try_once(self, folder, moments):
        """Returns what the worst kill cost; raises `FaultError` where files differ from those of an undisturbed run."""
        if self._inputs is None:
            self._inputs = self.write_inputs(folder / "inputs")
            self._finish(self._start(folder / "undisturbed", folder / "undisturbed-logs", workers=1))
        self._tries += 1
        output = folder / f"disturbed-{self._tries}"
        attempts = []
        try:
            trial = self._disturb(output, attempts, moments)
        finally:
            for attempt in attempts:
                attempt.end()
        found, expected = digests(output), digests(folder / "undisturbed")
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        require(not odd, f"not as an undisturbed run writes them: {', '.join(odd[:5])}")
        return trial

    def _disturb(self, output, attempts, moments):
        done, struck_s, lost, waits_s, notes = {}, time.monotonic(), [0], [], []
        while True:
            logs = output.with_name(f"{output.name}-logs") / str(len(attempts))
            attempts.append(attempt := self._start(output, logs, workers=2))
            if notes:
                self._wait_for_more(attempt, output, len(done))
                waits_s.append(time.monotonic() - struck_s)
            goal = len(done) + moments.randint(1, self.tasks)
            while attempt.is_running() and len(_done(output)) < goal:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.2))
            if len(notes) == self.kills or not attempt.is_running():
                self._finish(attempt)
                return Trial(self.name, max(lost), max(waits_s, default=0.0), ", ".join(notes) or "never killed")
            notes.append(_kill(attempt, moments))
            struck_s, before, done = time.monotonic(), done, _done(output)
            again = [path.name for path in before.keys() & done.keys() if before[path] != done[path]]
            require(not again, f"done, and done again: {', '.join(again)}")
            lost.append(_under_way(output))

    def _start(self, output, logs, *, workers):
        words = [sys.executable, "-m", *self.command(self._inputs, output, workers)]
        return Attempt(words, logs, environment={**os.environ, "PYTHONPATH": str(ROOT)})

    def _finish(self, attempt):
        end = attempt.finish()
        require(end.status == 0, f"ended with status {end.status}:\n{end.log[-3000:]}")

    def _wait_for_more(self, attempt, output, count):
        through = output / MANIFEST_NAME
        attempt.wait_until(lambda: len(_done(output)) > count or through.exists(), "one more task")


class PrepareKilled(PreparationFault):
    name = "prepare-killed"
    what = "`asccl prepare`, all stages on two Beam workers: SIGKILL up to 3 times, to all processes or the first alone"
    tasks = 9

    def write_inputs(self, folder):
        folder.mkdir(parents=True)
        for name, tempo in (("a", None), ("b", 3)):
            write_clip(folder, name, tempo=tempo, frames=16)
        rows = [(f"{'ab'[i % 2]}.mp4", f"S{i // 8}", ("neutral", "sad")[i % 2], str(i // 2)) for i in range(16)]
        return write_table(folder / "clips.csv", rows)

    def command(self, inputs, output, workers):
        words = ["--layout", "list", "--landmarks", "precomputed", "--image-size", 48, "--quiet"]
        return ["tests.faults.always_beam", inputs, *words, "--output", output, "--workers", workers]


class ReconstructKilled(PreparationFault):
    name = "reconstruct-killed"
    what = "`asccl data reconstruct` on two Beam workers: SIGKILL up to 3 times, to all processes or the first alone"
    tasks = 5

    def write_inputs(self, folder):
        rows = []
        for speaker in ("Ann", "Bob"):
            for emotion in ("neutral", "happy"):
                write_drawn_clip(folder / f"{speaker}-{emotion}", frames=4, open_mouth=emotion == "happy")
                rows.append((f"{speaker}-{emotion}", speaker, emotion, "s1"))
        return write_list(folder / "clips.csv", rows)

    def command(self, inputs, output, workers):
        words = ["--landmarks", "precomputed", "--landmark-table", "synthetic", "--device", "cpu", "--quiet"]
        return ["DECA_torch_bridge", "precompute", inputs, *words, "--output", output, "--workers", workers]


def _done(output):
    """Tasks that are done, by the file that says so, and when it was written."""
    found = {}
    for path in (output / "work").glob("*/*.json"):
        with contextlib.suppress(FileNotFoundError):  # the work of a run that is through is removed
            found[path] = path.stat().st_mtime_ns
    return found


def _under_way(output):
    marks = (output / "work").glob("*/*.started")
    return sum(not mark.with_suffix(".json").exists() for mark in marks)


def _kill(attempt, moments):
    """Kills all processes, or the first of them only; returns which."""
    if moments.random() < 0.5:
        attempt.end()
        return "all"
    attempt.send(signal.SIGKILL)
    attempt.finish()
    return "the first"


def digests(folder):
    """SHA-256 of every file in a folder by its path there."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
