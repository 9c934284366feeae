"""Messages between devices that an update of a recipe takes, by how BatchNorm groups, state and batch are split."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from asccl_jax.bench.hlo_collectives import KINDS
from asccl_jax.bench.report import Report, align, format_quantity
from asccl_jax.errors import InputError

__all__ = ["add_arguments", "run"]

_DESCRIPTION = """
Compiles the update of a recipe for a mesh of devices and counts what it sends between them in a step, from the text of
the compiled program; collectives of a loop count as often as it turns. Nothing is run and no data is read, so a laptop
can tell about what a pod would send. Not exactly: GPUs and TPUs may join or cut collectives otherwise than simulated
devices do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench collectives`."""
    parser.description = _DESCRIPTION
    parser.add_argument("--config", required=True, metavar="RECIPE[:VARIANT]", help="such as configs/asccl.py:demo")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an entry of the recipe; repeatable"
    )
    parser.add_argument(
        "--devices", type=int, default=4, help="CPU devices to simulate (default: 4); 0: this machine's own devices"
    )
    parser.add_argument("--rows", type=int, default=8, help="examples a device (default: 8)")
    parser.add_argument(
        "--groups",
        type=int,
        nargs="+",
        metavar="G",
        help="sizes of the metric's BatchNorm groups; 0: the global batch (default: the recipe's)",
    )
    parser.add_argument(
        "--fsdp", type=int, nargs="+", default=[1], metavar="N", help="devices the state is split over (default: 1)"
    )
    parser.add_argument(
        "--accumulation", type=int, nargs="+", default=[1], metavar="N", help="passes an update (default: 1)"
    )


def run(options: argparse.Namespace) -> Report:
    """Compiles every combination and returns the report.

    Raises:
      InputError: An option or a recipe that makes no sense.
    """
    if options.devices < 0 or options.rows < 1:
        raise InputError(f"--devices={options.devices} --rows={options.rows}: expected at least 0 and 1")
    request = {
        "words": [f"--config={options.config}", *(f"--config.{entry}" for entry in options.set)],
        "rows": options.rows,
        "groups": options.groups or [None],
        "fsdp": options.fsdp,
        "accumulation": options.accumulation,
    }
    rows = _ask_child(request, options.devices)
    data = {"benchmark": "collectives", "devices": options.devices, **request, "rows_a_device": options.rows}
    return Report(_text(rows, options), {**data, "rows": rows})


def _ask_child(request: dict[str, Any], devices: int) -> list[dict[str, Any]]:
    """Returns a row a combination, from a process of its own: JAX counts its devices once, when it starts."""
    environment = dict(os.environ)
    if devices:
        environment["JAX_PLATFORMS"] = "cpu"
        flag = f"--xla_force_host_platform_device_count={devices}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
    child = subprocess.run(
        [sys.executable, "-m", "asccl_jax.bench.collective_counts", json.dumps(request)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    if rows and "error" in rows[-1]:
        raise InputError(rows[-1]["error"])
    if child.returncode:
        raise RuntimeError(
            f"the compiling process ended with {child.returncode}; its last words:\n{child.stderr[-2000:]}"
        )
    return rows


def _text(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    kinds = [kind for kind in KINDS if any(row["collectives"][kind]["count"] for row in rows)]
    devices = f"{options.devices} simulated devices" if options.devices else "this machine's devices"
    lines = [
        f"update of {options.config} ({rows[0]['task']}), {options.rows} examples on each of {devices}"
        f" ({rows[0]['device']}); a step sends:",
        "",
    ]
    header = ["groups", "fsdp", "passes", *(name for kind in kinds for name in (kind, "bytes")), "held", "temporary"]
    lines += align([header, *(_cells(row, kinds) for row in rows)])
    lines += ["", "bytes: what the collectives leave on a device; held: its state and examples; temporary: on top"]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any], kinds: list[str]) -> list[str]:
    named = {None: "recipe's", 0: "global"}
    cells = [named.get(row["groups"], str(row["groups"])), str(row["fsdp"]), str(row["accumulation"])]
    for kind in kinds:
        tally = row["collectives"][kind]
        cells += [str(tally["count"]), format_quantity(tally["bytes"], "B")]
    return [*cells, *(format_quantity(row[name], "B") for name in ("argument_bytes", "temporary_bytes"))]
