"""Messages between devices that an update of a recipe takes, by how BatchNorm groups, state and batch are split."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from typing import Any

from asccl_jax.bench.harness import Report, align, format_quantity
from asccl_jax.errors import InputError

__all__ = [
    "KINDS",
    "Tally",
    "add_arguments",
    "count_collectives",
    "run",
]

# Collectives of a compiled program, counted from its text: how many of each kind a run starts and what they carry.

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
"""What is counted; XLA has no other between devices that our programs could contain."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf" = (?P<shape>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Tally:
    """Collectives of one kind.

    Attributes:
      count: How many a run starts; one that carries many arrays at once is one.
      bytes: What they leave on a device, all together.
    """

    count: int = 0
    bytes: int = 0


def count_collectives(program: str) -> dict[str, Tally]:
    """Returns the collectives of each kind that one run of a program starts on every device.

    One in a loop counts as often as the loop turns; in a loop whose length the compiler does not know, once. Both
    branches of a condition count.

    >>> text = '''ENTRY %main (x: f32[4]) -> f32[8] {
    ...   %sum = f32[4]{0} all-reduce(%x), to_apply=%add
    ...   ROOT %all = f32[8]{0} all-gather(%sum), dimensions={0}
    ... }'''
    >>> counted = count_collectives(text)
    >>> counted["all-reduce"], counted["all-gather"], counted["all-to-all"]
    (Tally(count=1, bytes=16), Tally(count=1, bytes=32), Tally(count=0, bytes=0))

    Args:
      program: What `compiled.as_text()` returns.
    """
    computations, entry = _computations(program)
    counts: dict[str, int] = defaultdict(int)
    carried: dict[str, int] = defaultdict(int)

    def run(name: str, times: int) -> None:
        for line in computations.get(name, ()):
            if found := _COLLECTIVE.search(line):
                counts[found["kind"]] += times
                carried[found["kind"]] += times * _result_bytes(found["shape"], found["kind"], bool(found["start"]))
            turns = _TRIPS.search(line) if " while(" in line else None
            for called in _called(line):
                run(called, times * (int(turns[1]) if turns else 1))

    run(entry, 1)
    return {kind: Tally(counts[kind], carried[kind]) for kind in KINDS}


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation that matter, and the name of the one that is run."""
    computations: dict[str, list[str]] = {}
    name = entry = ""
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            name = header[2]
            entry = name if header[1] else entry
            computations[name] = []
        elif _CALLED.search(line) or _BRANCHES.search(line) or _COLLECTIVE.search(line):
            computations[name].append(line)
    return computations, entry


def _called(line: str) -> list[str]:
    branches = _BRANCHES.search(line)
    others = [name.strip().lstrip("%") for name in branches[1].split(",")] if branches else []
    return [*_CALLED.findall(line), *others]


def _result_bytes(shape: str, kind: str, starts: bool) -> int:
    arrays = [_array_bytes(found) for found in _ARRAY.finditer(shape)]
    if starts and kind == "collective-permute":
        return arrays[1]
    if starts and kind != "all-reduce":
        # What an asynchronous one returns at first holds its operands, then its results.
        arrays = arrays[len(arrays) // 2 :]
    return sum(arrays)


def _array_bytes(found: re.Match[str]) -> int:
    bits = 8 if found[1] == "pred" else int(found[2])
    return math.prod(int(length) for length in found[3].split(",") if length) * bits // 8


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
