"""Collectives of a compiled program, counted from its text: how many of each kind a run starts and what they carry."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict

__all__ = ["KINDS", "Tally", "count_collectives"]

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
