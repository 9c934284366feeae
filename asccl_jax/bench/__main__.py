"""The command `asccl bench`, or `python -m asccl_jax.bench`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from asccl_jax import process
from asccl_jax.errors import InputError, exit_on_input_error

__all__ = ["main"]

_BENCHMARKS = {
    "metric": ("asccl_jax.bench.metric_bench", "the metric's training step, beside PyTorch's"),
    "manipulator": (
        "asccl_jax.bench.manipulator_bench",
        "the manipulator's training step and a clip, beside PyTorch's",
    ),
    "renderer": ("asccl_jax.bench.renderer_bench", "drawing a frame, its gradient and a clip, beside PyTorch's"),
    "bridge": ("asccl_jax.bench.bridge_bench", "frames a second through each stage of the DECA bridge"),
    "input": ("asccl_jax.bench.input_pipeline", "images a second out of the input pipeline"),
    "collectives": ("asccl_jax.bench.collectives", "what an update sends between devices, counted, not timed"),
}


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `asccl bench ...` and returns its exit status.

    Args:
      arguments: Words after `bench`; None takes those of the process.
    """
    process.apply_xla_flags()  # Workers inherit it; some benchmarks import JAX, after which it is too late.
    parser = argparse.ArgumentParser(
        prog=process.command_name(), description="Measure speed and memory on this machine."
    )
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for name, (module_name, summary) in _BENCHMARKS.items():
        module = importlib.import_module(module_name)
        benchmark = benchmarks.add_parser(name, help=summary)
        benchmark.set_defaults(run=module.run)
        module.add_arguments(benchmark)
        benchmark.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement here as well")
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.parent.is_dir():
        raise InputError(f"--json={options.json}: the folder {options.json.parent} does not exist; make it first")
    report = options.run(options)
    sys.stdout.write(report.text)
    if options.json is not None:
        options.json.write_text(json.dumps(report.data, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
