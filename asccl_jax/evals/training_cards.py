"""What the reports of all tasks say of a training run: how long it took, and its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asccl_jax.evals.history import History
from asccl_jax.evals.metric_text import Grid
from asccl_jax.evals.report_page import Card, Section
from asccl_jax.evals.run_tables import run_grids
from asccl_jax.metrics_file import read_summary

__all__ = ["effort_card", "settings_section"]


def effort_card(history: History, config: Mapping[str, Any], seconds: float | None, *, unit: str) -> Card:
    """Returns how long was trained.

    Args:
      history: Lines of `metrics.jsonl`.
      config: The recipe, with `batch_size` and `seed`.
      seconds: Wall time, if known.
      unit: What an example is called.
    """
    speeds = [value for line in history for name, value in line.items() if name == f"speed/{unit}s_per_s"]
    steps = int(max((line["step"] for line in history), default=0))
    time = f"{seconds / 60:.1f} minutes; " if seconds is not None else ""
    speed = f" at {speeds[-1]:.1f} {unit}s a second" if speeds else ""
    plural = "" if config["batch_size"] == 1 else "s"
    meaning = f"{time}{config['batch_size']} {unit}{plural} a step{speed}; seed {config['seed']}."
    return Card("training", f"{steps:,} steps", meaning)


def settings_section(workdir: Path, config: Mapping[str, Any]) -> Section:
    """Returns where the run's time went, and every entry of its recipe that was set."""
    summary = read_summary(workdir)
    times = run_grids(summary) if summary is not None else ()
    return Section("Run and settings", grids=(*times, _settings_grid(config)))


def _settings_grid(config: Mapping[str, Any]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}.{inner}", json.dumps(entry)) for inner, entry in value.items() if entry is not None]
        elif value is not None:
            rows.append((name, json.dumps(value)))
    return Grid("Recipe", "Entries left to their defaults by `compat` are not listed.", ("entry", "value"), tuple(rows))
