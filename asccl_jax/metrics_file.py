"""The scalars of a run on disk, `metrics.jsonl`: a line `{"step": 10, "metric/loss": 1.5, ...}` at a time."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["METRICS_FILE", "read_metrics"]

METRICS_FILE = "metrics.jsonl"


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
