"""Speed of the manipulator: its training step beside PyTorch's, and a clip in one batch beside window by window."""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from contextlib import ExitStack
from typing import Any

from asccl_jax.bench.harness import (
    TORCH_LEFT_OUT,
    Report,
    StepOptions,
    Turn,
    Worker,
    align,
    describe_machine,
    format_quantity,
    has_torch_side,
    start_worker,
)
from asccl_jax.errors import InputError
from asccl_jax.settings import ManipulatorSettings

__all__ = ["add_arguments", "run"]

_MODULES = {"jax": "asccl_jax.bench.manipulator_step", "torch": "tests.twins.manipulator_step"}
_TURN_S = 1.0
"""A turn lasts at least about this long, so that short steps are not lost in the noise of asking."""

PARTS = {"train": "training step", "clip": "clip, one batch", "windows": "clip, window by window"}
TARGETS = {"train": 0.7, "clip": 6.0}
"""Least ratio of the published form's time, PyTorch and window by window, to JAX's in one batch."""

_DESCRIPTION = """
Times the four updates of a training step, and the generator over all windows of a clip. JAX and PyTorch are built in
processes of their own on the same cores and take turns, so that whatever else the machine does falls on both. Judge by
processor seconds on a shared CPU and by wall seconds on an accelerator.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench manipulator`."""
    parser.description = _DESCRIPTION
    parser.add_argument("--batch", type=int, default=64, help="windows a training step (default: 64)")
    parser.add_argument("--frames", type=int, default=1000, help="frames of the clip (default: 1000)")
    parser.add_argument("--width", type=int, help="width of the generator, for a smaller network (default: 512)")
    parser.add_argument("--rounds", type=int, default=3, help="turns each framework takes (default: 3)")
    parser.add_argument("--threads", type=int, help="cores to use (default: all this process may use)")
    parser.add_argument("--no-torch", action="store_true", help="measure JAX alone")


def run(options: argparse.Namespace) -> Report:
    """Measures and returns the report.

    Raises:
      InputError: An option no step can be built from.
    """
    for name in ("batch", "rounds", "threads", "width"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}={value}: expected at least 1")
    settings = ManipulatorSettings()
    if options.width:
        settings = dataclasses.replace(settings, generator_width=options.width, generator_head_width=2 * options.width)
    if options.frames < settings.window:
        raise InputError(f"--frames={options.frames}: expected at least a window, {settings.window}")
    threads = options.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    machine = describe_machine(threads or 1)
    with_torch = not options.no_torch and has_torch_side()
    frameworks = ["jax", "torch"] if with_torch else ["jax"]
    fields = {**settings.to_dict(), "frames": options.frames}
    rows = _measure(StepOptions(fields, options.batch, 0, "float32", threads or 1), frameworks, options.rounds)
    data = {
        "benchmark": "manipulator",
        "machine": machine,
        "settings": settings.to_dict(),
        "batch": options.batch,
        "frames": options.frames,
        "rows": rows,
        "ratios": _ratios(rows),
    }
    return Report(_text(data, torch_left_out=not with_torch and not options.no_torch), data)


def _measure(step: StepOptions, frameworks: list[str], rounds: int) -> list[dict[str, Any]]:
    """Returns one row a framework, each part measured in turns."""
    turns: dict[str, dict[str, list[Turn]]] = {name: {part: [] for part in PARTS} for name in frameworks}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(start_worker(_MODULES[name], step)) for name in frameworks}
        for part in PARTS:
            counts = {name: _steps_a_turn(worker, part) for name, worker in workers.items()}
            for turn in range(rounds):
                # The one who starts changes, so that neither always follows the other.
                for name in frameworks if turn % 2 == 0 else reversed(frameworks):
                    turns[name][part].append(workers[name].turn(counts[name], part=part))
        closing = {name: worker.finish() for name, worker in workers.items()}
    return [
        {
            **workers[name].description,
            **closing[name],
            "parts": {part: _summary(measured) for part, measured in turns[name].items()},
        }
        for name in frameworks
    ]


def _steps_a_turn(worker: Worker, part: str) -> int:
    worker.turn(1, part=part)  # compiles, or warms up
    return max(1, round(_TURN_S / max(worker.turn(1, part=part).wall_s, 1e-6)))


def _summary(turns: list[Turn]) -> dict[str, Any]:
    medians = {field: statistics.median(getattr(turn, field) for turn in turns) for field in ("wall_s", "cpu_s")}
    return {**medians, "turns": [dataclasses.asdict(turn) for turn in turns]}


def _ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns, by clock and by processor, slower over faster time, turn by turn, of what was measured."""
    parts = {row["framework"]: row["parts"] for row in rows}
    compared = {"clip_in_jax": (parts["jax"]["windows"], parts["jax"]["clip"])}
    if "torch" in parts:
        compared["train"] = (parts["torch"]["train"], parts["jax"]["train"])
        compared["clip"] = (parts["torch"]["windows"], parts["jax"]["clip"])
    return {
        name: {
            field: statistics.median(
                one[field] / other[field] for one, other in zip(slower["turns"], faster["turns"], strict=True)
            )
            for field in ("wall_s", "cpu_s")
        }
        for name, (slower, faster) in compared.items()
    }


def _text(data: dict[str, Any], *, torch_left_out: bool) -> str:
    machine = data["machine"]
    lines = [
        f"manipulator: training steps of {data['batch']} windows of {data['settings']['window']} frames, clips of"
        f" {data['frames']} frames, generator {data['settings']['generator_width']} wide",
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, load {machine['load_before']:.1f}"
        " before",
        "",
    ]
    table = [["", "", "cpu s", "wall s", "a second"]]
    for row in data["rows"]:
        version = f"{row['framework']} {row['versions'][row['framework']]} {row['device']}"
        for part, name in PARTS.items():
            measured = row["parts"][part]
            rate = (1 if part == "train" else data["frames"]) / measured["wall_s"]
            unit = "steps" if part == "train" else "frames"
            table.append([version, name, f"{measured['cpu_s']:.3f}", f"{measured['wall_s']:.3f}", f"{rate:.3g} {unit}"])
    lines += [*align(table), ""]
    field = "cpu_s" if data["rows"][0]["platform"] == "cpu" else "wall_s"
    meanings = {
        "train": "training step, torch / jax",
        "clip": "clip, window by window in torch (as published) / one batch in jax",
        "clip_in_jax": "clip, window by window in jax / one batch in jax",
    }
    for name, meaning in meanings.items():
        if name in data["ratios"]:
            ratios = data["ratios"][name]
            line = f"{meaning}: {ratios['cpu_s']:.2f} in processor time, {ratios['wall_s']:.2f} in wall time"
            if name in TARGETS:
                line += f"; target {TARGETS[name]:g}: {'reached' if ratios[field] >= TARGETS[name] else 'MISSED'}"
            lines.append(line)
    for row in data["rows"]:
        memory = format_quantity(row["peak_device_bytes"] or row["peak_rss_bytes"], "B")
        lines.append(f"memory of {row['framework']}: {memory} at most")
    jax = data["rows"][0]
    lines.append(
        f"XLA: training step compiled in {jax['compile_s']:.1f} s, plans"
        f" {format_quantity(jax['xla_temporary_bytes'], 'B')} of temporaries"
    )
    if torch_left_out:
        lines.append(TORCH_LEFT_OUT)
    return "\n".join(lines) + "\n"
