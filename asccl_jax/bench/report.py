"""What a benchmark hands back: text for a person, and the same as data for a machine."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Sequence
from typing import Any

__all__ = ["Report", "align", "describe_machine", "format_quantity"]


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of one benchmark.

    Attributes:
      text: Lines to read.
      data: What JSON can hold: all that the text says, with every single measurement.
    """

    text: str
    data: dict[str, Any]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, first column to the left and the others to the right.

    >>> align([["step", "s"], ["a", "10.5"]])
    ['step     s', 'a     10.5']
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def format_quantity(value: float | int | None, unit: str = "") -> str:
    """Returns a number to three figures with a decimal prefix, or a dash for None.

    >>> format_quantity(3.52e9, "B"), format_quantity(0.0123, "s"), format_quantity(None)
    ('3.52 GB', '12.3 ms', '-')
    """
    if value is None:
        return "-"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}".rstrip()
    return f"{value:.3g} {unit}".rstrip()


def describe_machine(threads: int) -> dict[str, Any]:
    """Returns what a reader must know of the machine to judge a figure measured on it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
