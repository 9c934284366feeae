"""Scalars and pictures on disk: `metrics.jsonl`, which a continued run goes on with exactly, and TensorBoard."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from asccl_jax.errors import writing
from asccl_jax.metrics_file import METRICS_FILE, PICTURES, SUMMARY_FILE, read_metrics
from asccl_jax.train.experiment import FitResult
from asccl_jax.train.run.clock import Phase
from asccl_jax.work import write_atomically

__all__ = [
    "NonFiniteError",
    "ScalarQueue",
    "ScalarWriter",
    "check_finite",
    "summarise",
    "trim_metrics",
    "write_summary",
]

# tensorboardX imports torch wherever it is installed: half the time that training takes to start, for nothing.
_hidden = {} if "torch" in sys.modules else {"torch": None}
sys.modules.update(_hidden)  # type: ignore[arg-type]
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
finally:
    for _name in _hidden:
        del sys.modules[_name]


_EVENTS_INTERVAL_S = 10.0
"""TensorBoard sees new scalars this late, or with the next checkpoint."""


class ScalarWriter:
    """Writes lines `{"step": 10, "metric/loss": 1.5, ...}`, and the same scalars as TensorBoard events.

    Every method raises `WriteError` where the disk is full.

    Args:
      workdir: Folder of the run.
      last_step: Step the run continues from; later lines of an interrupted attempt are dropped.
    """

    def __init__(self, workdir: Path, *, last_step: int) -> None:
        self._workdir = workdir
        path = workdir / METRICS_FILE
        with writing(workdir):
            trim_metrics(path, last_step)
            self._file = path.open("a", encoding="utf-8")
            self._events = _EventFile(workdir / "tensorboard", first_step=last_step + 1)

    def __enter__(self) -> ScalarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self._workdir), contextlib.closing(self._events), self._file:
            self._sync()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of one step."""
        with writing(self._workdir):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            self._events.write(step, values)

    def write_pictures(self, step: int, pictures: Mapping[str, UInt8[np.ndarray, "h w 3"]]) -> None:
        """Writes RGB pictures of one step as PNG files and as TensorBoard events."""
        with writing(self._workdir):
            (self._workdir / PICTURES).mkdir(exist_ok=True)
            for name, picture in pictures.items():
                file = io.BytesIO()
                Image.fromarray(picture).save(file, format="PNG")
                write_atomically(self._workdir / PICTURES / f"{name}-{step:06d}.png", file.getvalue())
                self._events.write_picture(step, name, file.getvalue(), shape=picture.shape[:2])

    def sync(self) -> None:
        """Returns once everything written is on the disk; call it before a checkpoint that counts on it."""
        with writing(self._workdir):
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()


class _EventFile:
    """TensorBoard's file of events, written in the calling thread.

    Not by tensorboardX's SummaryWriter: its thread dies on a full disk, and then its queue fills and blocks for good.
    """

    def __init__(self, directory: Path, *, first_step: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(directory / "events"))
        self._flushed_s = time.monotonic()
        # TensorBoard hides what an interrupted attempt wrote from this step on.
        self._add(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(step=step, summary=Summary(value=scalars)))
        if time.monotonic() - self._flushed_s > _EVENTS_INTERVAL_S:
            self.flush()

    def write_picture(self, step: int, name: str, png: bytes, *, shape: tuple[int, ...]) -> None:
        height, width = shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def flush(self) -> None:
        self._flushed_s = time.monotonic()
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write_event(event)


def trim_metrics(path: Path, last_step: int) -> None:
    """Keeps the lines of a metrics file up to and with `last_step`; they stay as they are, bit for bit."""
    kept = [line for line in read_metrics(path) if line["step"] <= last_step]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))


# Scalars fetched late, so that the host never waits for the step it has just started, and checked for NaN.


class NonFiniteError(RuntimeError):
    """A scalar is NaN or infinite.

    Attributes:
      name: The scalar.
      step: The step it belongs to.
      value: What it was.
    """

    def __init__(self, name: str, step: int, value: float) -> None:
        super().__init__(f"{name} is {value} at step {step}")
        self.name = name
        self.step = step
        self.value = value


class ScalarQueue:
    """Scalars of the steps in flight, in order.

    Args:
      depth: Steps that may be in flight. Two keep the device busy; more only delay the check.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._waiting: collections.deque[tuple[int, Mapping[str, jax.Array]]] = collections.deque()

    def push(self, step: int, scalars: Mapping[str, jax.Array]) -> Iterator[tuple[int, dict[str, float]]]:
        """Adds a step just started; yields those that are `depth` steps old.

        Raises:
          NonFiniteError: One of the yielded scalars is not finite.
        """
        for value in scalars.values():
            value.copy_to_host_async()
        self._waiting.append((step, scalars))
        yield from self._pop(self._depth)

    def drain(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Waits for all steps in flight and yields their scalars.

        Raises:
          NonFiniteError: One of them is not finite.
        """
        yield from self._pop(0)

    def _pop(self, remaining: int) -> Iterator[tuple[int, dict[str, float]]]:
        while len(self._waiting) > remaining:
            step, scalars = self._waiting.popleft()
            values = {name: float(value) for name, value in scalars.items()}
            check_finite(step, values)
            yield step, values


def check_finite(step: int, values: Mapping[str, float]) -> None:
    """Raises `NonFiniteError` for the first value that is NaN or infinite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(name, step, value)


# The figures that end a run, as `summary.json` holds them.


def summarise(result: FitResult, *, input_threads: int | None, attempt: int = 1) -> dict[str, Any]:
    """Returns how far a run came, where the time of this process went, and what each process measured.

    Args:
      result: What the loop returned.
      input_threads: Threads that read ahead, or None where the task has none.
      attempt: Which start of the command this was, where `--max_restarts` starts it again.
    """
    seconds = {phase.value: result.phase_s[phase] for phase in Phase}
    # Placing and waiting for the device are what training consists of; the processes' own figures tell them apart.
    seconds[Phase.TRAINING.value] += seconds.pop(Phase.PLACING.value) + seconds.pop(Phase.DEVICE.value)
    return {
        "step": result.step,
        "first_step": result.first_step,
        "attempt": attempt,
        "steps_per_s": result.steps_per_s,
        "examples_per_s": result.steps_per_s * result.batch_size,
        "unit": result.unit,
        "best_step": result.best_step,
        "best_score": result.best_score,
        "checkpoints": result.checkpoints,
        "input_threads": input_threads,
        "seconds": seconds,
        "processes": [
            {**dataclasses.asdict(figures), "input_share": figures.input_share} for figures in result.processes
        ],
    }


def write_summary(workdir: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`; a start that found nothing left to do leaves the one of the start before.

    Raises:
      WriteError: The disk is full, or access is denied.
    """
    if summary["step"] == summary["first_step"]:
        return
    with writing(workdir / SUMMARY_FILE):
        write_atomically(workdir / SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")
