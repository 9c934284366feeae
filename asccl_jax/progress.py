"""Progress bars: redrawn on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["SECONDS_BETWEEN_LINES", "ProgressBar"]

SECONDS_BETWEEN_LINES = 60.0
"""Where nobody watches a terminal. What is done sooner says nothing."""


class ProgressBar(tqdm):
    """A `tqdm` bar on stderr that leaves no redraws in a log: there it prints a line a minute, and a last one.

    Args:
      iterable: What to count while it is read; None counts by `update`.
      disable: Shows nothing, nowhere.
      options: As `tqdm` takes them.
    """

    def __init__(self, iterable: Iterable[Any] | None = None, *, disable: bool = False, **options: Any) -> None:
        if sys.stderr.isatty():
            options |= {"dynamic_ncols": True}
        else:
            pause = SECONDS_BETWEEN_LINES
            options |= {"file": _Lines(sys.stderr), "mininterval": pause, "maxinterval": pause, "delay": pause}
        super().__init__(iterable, disable=disable, **options)


class _Lines:
    """Takes a bar's redraws and writes each as a line."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if line := text.strip():
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        self._file.flush()
