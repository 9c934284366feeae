"""Where the time of a training run went, by phase and by process: tables for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asccl_jax.evals.metric_text import Grid, align

__all__ = ["conclusion", "input_advice", "run_grids"]

_LATE_INPUT = 0.2
"""Share of the time of training from which waiting for input is worth a word."""

_GIB = 2**30


def run_grids(summary: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Returns the tables of a run's `summary.json`."""
    seconds = summary["seconds"]
    total = sum(seconds.values())
    phases = [(name.replace("_", " "), spent) for name, spent in seconds.items()]
    rows = tuple((name, f"{spent:.1f}", _percent(spent / total if total else 0.0)) for name, spent in phases)
    steps = summary["step"] - summary["first_step"]
    start = f"attempt {attempt}" if (attempt := summary.get("attempt", 1)) > 1 else "this start"
    note = f"{_counted(steps, 'step')} of {start} at {summary['examples_per_s']:.1f} {summary['unit']}s/s"
    note += f"; {_counted(summary['checkpoints'], 'checkpoint')} written."
    headings = ("process", "host", "step", "95 % of steps", "input wait", "host memory", "device memory")
    return (
        Grid("Where the time went", note, ("phase", "seconds", "share"), (*rows, ("all", f"{total:.1f}", ""))),
        Grid("Processes", input_advice(summary), headings, tuple(map(_process_row, summary["processes"]))),
    )


def input_advice(summary: Mapping[str, Any]) -> str:
    """Returns what to do where training waits for its input; nothing where it does not."""
    latest = max(summary["processes"], key=lambda figures: figures["input_share"])
    if latest["input_share"] <= _LATE_INPUT:
        return ""
    where = f" (process {latest['process']}, {latest['host']})" if len(summary["processes"]) > 1 else ""
    threads = summary["input_threads"]
    cure = "the processor is too slow or too busy for it."
    if threads is not None:
        cure = f"raise --config.data.threads (now {threads}) if cores are idle, or put the records on faster storage."
    return f"Training waits for its input for {_percent(latest['input_share'])} of its time{where}: {cure}"


def conclusion(summary: Mapping[str, Any], workdir: Path, report: str) -> str:
    """Returns what a finished run prints: how far it came, the tables, and where everything lies.

    Args:
      summary: The run's `summary.json`.
      workdir: Folder of the run.
      report: Where the report is, or why there is none.
    """
    trained_s = sum(spent for phase, spent in summary["seconds"].items() if phase != "reporting")
    minutes, seconds = divmod(round(trained_s), 60)
    speed = f" at {summary['steps_per_s']:.3g} steps/s" if summary["steps_per_s"] else ""
    best_step, score = summary["best_step"], summary["best_score"]
    best = f" (step {best_step}, held-out score {score:.3f})" if best_step else ""
    grids = run_grids(summary) if summary["step"] > summary["first_step"] else ()
    tables = "".join(
        "\n".join(filter(None, (f"\n{grid.title}", grid.note, align(grid.headings, grid.rows)))) + "\n"
        for grid in grids
    )
    return (
        f"trained to step {summary['step']} in {minutes} min {seconds} s{speed}\n{tables}"
        + ("\n" if tables else "")
        + f"report: {report}\nbest:   {workdir / 'best'}{best}\nlast:   {workdir / 'last'}\n"
    )


def _process_row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    device = figures["device_peak_bytes"]
    return (
        str(figures["process"]),
        figures["host"],
        f"{figures['step_s']:.3f} s",
        f"{figures['step_p95_s']:.3f} s",
        _percent(figures["input_share"]),
        f"{figures['host_peak_bytes'] / _GIB:.2f} GiB",
        "-" if device is None else f"{device / _GIB:.2f} GiB",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
