"""What a run logs on disk: `metrics.jsonl`, a line `{"step": 10, "metric/loss": 1.5, ...}` at a time, and pictures."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["METRICS_FILE", "PICTURES", "picture_files", "read_metrics"]

METRICS_FILE = "metrics.jsonl"

PICTURES = "pictures"
"""Folder of a run with what it drew: `NAME-000100.png` of step 100."""


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


def picture_files(workdir: Path, name: str) -> dict[int, Path]:
    """Returns the files of one of a run's pictures by step, in the order of steps; none if it drew none.

    Args:
      workdir: Folder of the run.
      name: The picture's.
    """
    steps = {path.stem.removeprefix(f"{name}-"): path for path in (workdir / PICTURES).glob(f"{name}-*.png")}
    return dict(sorted((int(step), path) for step, path in steps.items() if step.isdigit()))
