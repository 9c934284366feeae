"""Scalars on disk: `metrics.jsonl`, which a continued run goes on with exactly, and TensorBoard beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import tensorboardX

from asccl_jax.data.atomic import write_atomically

__all__ = ["METRICS_FILE", "ScalarWriter", "read_metrics", "trim_metrics"]

METRICS_FILE = "metrics.jsonl"


class ScalarWriter:
    """Writes lines `{"step": 10, "metric/loss": 1.5, ...}`, and the same scalars as TensorBoard events.

    Args:
      workdir: Folder of the run.
      last_step: Step the run continues from; later lines of an interrupted attempt are dropped.
    """

    def __init__(self, workdir: Path, *, last_step: int) -> None:
        path = workdir / METRICS_FILE
        trim_metrics(path, last_step)
        self._file = path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=last_step + 1)

    def __enter__(self) -> ScalarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sync()
        self._file.close()
        self._events.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of one step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def sync(self) -> None:
        """Returns once everything written is on the disk; call it before a checkpoint that counts on it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """Returns the whole lines of a metrics file, in order; a last line cut short by a kill is left out.

    Args:
      path: The file; an absent one has no lines.
    """
    if not path.is_file():
        return []
    *lines, unfinished = path.read_text(encoding="utf-8").split("\n")
    del unfinished
    return [json.loads(line) for line in lines]


def trim_metrics(path: Path, last_step: int) -> None:
    """Keeps the lines of a metrics file up to and with `last_step`; they stay as they are, bit for bit."""
    kept = [line for line in read_metrics(path) if line["step"] <= last_step]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
