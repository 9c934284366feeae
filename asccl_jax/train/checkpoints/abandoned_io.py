"""Reads and writes that Orbax gives up: where one array of many fails, nobody waits for the answers to the others."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["abandoned_io_unheard"]


@contextlib.contextmanager
def abandoned_io_unheard() -> Iterator[None]:
    """Keeps quiet what is said to nobody any more: each would print a traceback beside the one error that matters.

    TensorStore's threads say that the event loop which asked has closed; Orbax takes the end of a coroutine that is
    thrown away for an error of the disk.
    """
    heard = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not _is_of_abandoned_io(unraisable.exc_value):
            heard(unraisable)

    sys.unraisablehook = hook
    yield
    # Not after an error: the answers are still to come.
    sys.unraisablehook = heard


def _is_of_abandoned_io(error: BaseException | None) -> bool:
    if isinstance(error, RuntimeError):
        return str(error) == "Event loop is closed"
    return type(error) is Exception and isinstance(error.__cause__, GeneratorExit)
