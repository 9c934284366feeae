"""Speed of the metric's training step, in turns with a PyTorch twin on the same cores."""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from contextlib import ExitStack
from typing import Any

from asccl_jax import process
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
    step_flops,
)
from asccl_jax.errors import InputError
from asccl_jax.settings import MetricSettings

__all__ = ["add_arguments", "run"]

_MODULES = {"jax": "asccl_jax.bench.metric_step", "torch": "tests.twins.metric_step"}
_TURN_S = 1.0
"""A turn lasts at least about this long, so that short steps are not lost in the noise of asking."""

_DESCRIPTION = """
Times forward, backward and Adam on random images. JAX and PyTorch are built in processes of their own on the same cores
and take turns, so that whatever else the machine does falls on both. Judge by processor seconds on a shared CPU and by
wall seconds on an accelerator.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench metric`."""
    parser.description = _DESCRIPTION
    parser.add_argument("--batch", type=int, default=8, help="pairs a step (default: 8)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default: 224)")
    parser.add_argument("--depth", type=int, default=50, help="IResNet of 18, 34, 50 or 100 layers (default: 50)")
    parser.add_argument("--compat", choices=("paper", "released"), default="released", help="form of the loss")
    parser.add_argument("--stage-blocks", type=_four, metavar="A,B,C,D", help="blocks, in place of --depth")
    parser.add_argument("--stage-widths", type=_four, metavar="A,B,C,D", help="channels, for a smaller network")
    parser.add_argument("--rounds", type=int, default=3, help="turns each framework takes (default: 3)")
    parser.add_argument("--threads", type=int, help="cores to use (default: all this process may use)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        action="append",
        help="repeatable (default: float32, on an accelerator bfloat16 too)",
    )
    parser.add_argument("--no-torch", action="store_true", help="measure JAX alone")
    parser.add_argument("--no-flag", action="store_true", help="leave XLA's CPU convolutions as jaxlib ships them")
    parser.add_argument(
        "--peak-tflops",
        type=float,
        help="peak that utilisation refers to, on CPU that of one core (default: measured on a matrix product)",
    )


def run(options: argparse.Namespace) -> Report:
    """Measures and returns the report.

    Raises:
      InputError: An option no step can be built from.
    """
    settings = _settings(options)
    threads = options.threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = describe_machine(threads or 1)
    frameworks = ["jax"] if options.no_torch or not has_torch_side() else ["jax", "torch"]
    dtypes = options.dtype or ["float32"]
    rows: list[dict[str, Any]] = []
    while dtypes:
        rows += _measure(options, settings, frameworks, dtypes[0], threads or 1)
        dtypes = dtypes[1:]
        if options.dtype is None and not dtypes and len(rows) == len(frameworks) and rows[0]["platform"] != "cpu":
            dtypes = ["bfloat16"]
    data = {
        "benchmark": "metric",
        "machine": machine,
        "settings": settings.to_dict(),
        "batch": options.batch,
        "image_size": options.size,
        "step_flops": step_flops(settings, options.size, options.batch),
        "rows": rows,
        "ratios": _ratios(rows),
    }
    return Report(_text(data, torch_left_out="torch" not in frameworks and not options.no_torch), data)


def _settings(options: argparse.Namespace) -> MetricSettings:
    for name in ("batch", "rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}={value}: expected at least 1")
    fields = {"depth": options.depth, "image_size": options.size, "stage_blocks": options.stage_blocks}
    if options.stage_widths:
        fields["stage_widths"] = options.stage_widths
    return MetricSettings.from_compat(options.compat, **fields)


def _measure(
    options: argparse.Namespace, settings: MetricSettings, frameworks: list[str], dtype: str, threads: int
) -> list[dict[str, Any]]:
    """Returns one row a framework, measured in turns."""
    step = StepOptions(settings.to_dict(), options.batch, options.size, dtype, threads)
    turns: dict[str, list[Turn]] = {name: [] for name in frameworks}
    with ExitStack() as stack:
        environment = _without_flag() if options.no_flag else None
        workers = {
            name: stack.enter_context(start_worker(_MODULES[name], step, environment=environment))
            for name in frameworks
        }
        first = {name: worker.turn(1) for name, worker in workers.items()}
        counts = {name: _steps_a_turn(worker) for name, worker in workers.items()}
        for turn in range(options.rounds):
            # The one who starts changes, so that neither always follows the other.
            for name in frameworks if turn % 2 == 0 else reversed(frameworks):
                turns[name].append(workers[name].turn(counts[name]))
        closing = {name: worker.finish() for name, worker in workers.items()}
    reference = workers["jax"].description
    return [
        _row(options, settings, dtype, workers[name].description, reference, first[name], turns[name], closing[name])
        for name in frameworks
    ]


def _steps_a_turn(worker: Worker) -> int:
    return max(1, round(_TURN_S / max(worker.turn(1).wall_s, 1e-6)))


def _row(
    options: argparse.Namespace,
    settings: MetricSettings,
    dtype: str,
    description: dict[str, Any],
    reference: dict[str, Any],
    first: Turn,
    turns: list[Turn],
    closing: dict[str, Any],
) -> dict[str, Any]:
    wall, cpu = (statistics.median(getattr(turn, field) for turn in turns) for field in ("wall_s", "cpu_s"))
    flops = step_flops(settings, options.size, options.batch)
    # A shared CPU gives processor seconds that do not depend on its other users; an accelerator only the clock's.
    on_cpu = description["platform"] == "cpu"
    rate = flops / (cpu if on_cpu else wall)
    measured = reference["matmul_flops_per_cpu_s" if on_cpu else "matmul_flops_per_wall_s"]
    peak = options.peak_tflops * 1e12 if options.peak_tflops else measured
    return {
        **description,
        "dtype": dtype,
        "turns": [dataclasses.asdict(turn) for turn in turns],
        "wall_s": wall,
        "cpu_s": cpu,
        "first_step_wall_s": first.wall_s,
        "pairs_per_s": options.batch / wall,
        "flops_per_s": rate,
        "peak_flops_per_s": peak,
        "utilisation": rate / peak,
        **closing,
    }


def _without_flag() -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "").split()
    return {"XLA_FLAGS": " ".join(flag for flag in flags if flag != process.CPU_CONVOLUTION_FLAG)}


def _ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns PyTorch's time over JAX's, turn by turn, for every dtype both were measured in."""
    ratios = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        sides = {row["framework"]: row["turns"] for row in rows if row["dtype"] == dtype}
        if len(sides) < 2:
            continue
        entry: dict[str, Any] = {"dtype": dtype}
        for field in ("wall_s", "cpu_s"):
            pairs = [torch[field] / jax[field] for torch, jax in zip(sides["torch"], sides["jax"], strict=True)]
            entry[field] = {"median": statistics.median(pairs), "all": pairs}
        ratios.append(entry)
    return ratios


def _text(data: dict[str, Any], *, torch_left_out: bool) -> str:
    machine = data["machine"]
    lines = [
        f"metric training step: {data['batch']} pairs of {data['image_size']} px, residual blocks"
        f" {MetricSettings.from_dict(data['settings']).blocks}, {format_quantity(data['step_flops'], 'FLOP')} counted",
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, load {machine['load_before']:.1f}"
        " before",
        "",
    ]
    header = ["", "cpu s", "wall s", "pairs/s", "FLOP/s", "of peak", "memory", "first step"]
    lines += align([header, *(_cells(row) for row in data["rows"])])
    lines.append("")
    for ratio in data["ratios"]:
        for field, name in (("cpu_s", "processor"), ("wall_s", "wall")):
            every = ", ".join(f"{value:.2f}" for value in ratio[field]["all"])
            lines.append(f"{ratio['dtype']}: torch / jax {name} time {ratio[field]['median']:.2f} (turns: {every})")
    lines += [line for row in data["rows"] if row["framework"] == "jax" for line in _notes(row)]
    if torch_left_out:
        lines.append(TORCH_LEFT_OUT)
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    versions = " ".join(f"{name} {version}" for name, version in row["versions"].items() if name != "jaxlib")
    return [
        f"{versions} {row['dtype']} {row['device']}",
        f"{row['cpu_s']:.3f}",
        f"{row['wall_s']:.3f}",
        f"{row['pairs_per_s']:.2f}",
        format_quantity(row["flops_per_s"]),
        f"{row['utilisation']:.0%}",
        format_quantity(row["peak_device_bytes"] or row["peak_rss_bytes"], "B"),
        f"{row['first_step_wall_s'] + row.get('compile_s', 0):.1f} s",
    ]


def _notes(row: dict[str, Any]) -> list[str]:
    lines = [
        f"XLA {row['dtype']}: compiled in {row['compile_s']:.1f} s, counts {format_quantity(row['xla_flops'], 'FLOP')}"
        f" (bodies of loops once), plans {format_quantity(row['xla_temporary_bytes'], 'B')} of temporaries",
        f"peak for utilisation: {format_quantity(row['peak_flops_per_s'], 'FLOP')}/s"
        + (" a core" if row["platform"] == "cpu" else ""),
    ]
    if row["platform"] == "cpu" and not row["cpu_flag_in_force"]:
        lines.append(
            "warning: the CPU convolution flag is not in force, so this is jaxlib's slow path; XLA_FLAGS should hold"
            f" {process.CPU_CONVOLUTION_FLAG}"
        )
    return lines


def _four(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected four integers as in 3,4,14,3") from None
