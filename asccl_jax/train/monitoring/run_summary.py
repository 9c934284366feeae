"""The figures that end a run, as `summary.json` holds them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asccl_jax.data.atomic import write_atomically
from asccl_jax.errors import writing
from asccl_jax.metrics_file import SUMMARY_FILE
from asccl_jax.train.experiment import FitResult
from asccl_jax.train.monitoring.run_clock import Phase

__all__ = ["summarise", "write_summary"]


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
