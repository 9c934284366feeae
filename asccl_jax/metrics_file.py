"""What a run tells of itself on disk: a line of `metrics.jsonl` at a time, pictures, and in the end a summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["METRICS_FILE", "PICTURES", "SUMMARY_FILE", "picture_files", "read_metrics", "read_summary"]

METRICS_FILE = "metrics.jsonl"

SUMMARY_FILE = "summary.json"
"""File of a run that finished or was stopped: how far it came, where its time went, what each process measured."""

PICTURES = "pictures"
"""Folder of a run with what it drew: `NAME-000100.png` of step 100."""


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """Returns the whole lines of a metrics file, `{"step": 10, "metric/loss": 1.5, ...}`, in order.

    A last line cut short by a kill is left out.

    Args:
      path: The file; an absent one has no lines.
    """
    if not path.is_file():
        return []
    *lines, unfinished = path.read_text(encoding="utf-8").split("\n")
    del unfinished
    return [json.loads(line) for line in lines]


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """Returns the summary of a run, or None before it has one.

    Args:
      workdir: Folder of the run.
    """
    path = workdir / SUMMARY_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def picture_files(workdir: Path, name: str) -> dict[int, Path]:
    """Returns the files of one of a run's pictures by step, in the order of steps; none if it drew none.

    Args:
      workdir: Folder of the run.
      name: The picture's.
    """
    steps = {path.stem.removeprefix(f"{name}-"): path for path in (workdir / PICTURES).glob(f"{name}-*.png")}
    return dict(sorted((int(step), path) for step, path in steps.items() if step.isdigit()))
