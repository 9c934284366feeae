"""The one exception a person may see: bad input, named, with what to do about it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

__all__ = ["InputError", "exit_on_input_error"]


class InputError(ValueError):
    """Something a user gave is wrong: a path, a setting, a record, a checkpoint.

    The message is one line that names the thing, says what was found and what was expected, and what to do.
    Entry points print it without a traceback and exit with status 2.
    """


def exit_on_input_error(main: Callable[..., int]) -> Callable[..., int]:
    """Wraps an entry point so that an `InputError` becomes one line on stderr and exit status 2.

    Args:
      main: Function that returns the process's exit status.

    Returns:
      The same function, never raising `InputError`.
    """

    @functools.wraps(main)
    def guarded(*args: object, **keywords: object) -> int:
        try:
            return main(*args, **keywords)
        except InputError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2

    return guarded
