"""The exceptions a person may see: bad input, and a disk that takes no more; each named, with what to do about it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["InputError", "WriteError", "exit_on_input_error", "writing"]


class InputError(ValueError):
    """Something a user gave is wrong: a path, a setting, a record, a checkpoint.

    The message is one line that names the thing, says what was found and what was expected, and what to do.
    Entry points print it without a traceback and exit with status 2.
    """


class WriteError(RuntimeError):
    """A file cannot be written: the disk is full, a quota is reached, access is denied.

    The message is one line that names the place and the system's reason. Entry points print it without a traceback and
    exit with status 1.
    """


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the system's errors in a block that writes into `WriteError`.

    Args:
      path: The file or folder that is written, for the message.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    except ValueError as error:
        # TensorStore, with which Orbax writes arrays, wraps the system's error into its own message.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        raise WriteError(f"cannot write {path}: {os.strerror(int(code[1]))}") from error


def exit_on_input_error(main: Callable[..., int]) -> Callable[..., int]:
    """Wraps an entry point: `InputError` and `WriteError` become one line on stderr and exit status 2 and 1.

    A reader that leaves (`| head`) ends it quietly, with the status that a shell gives such a program.

    Args:
      main: Function that returns the process's exit status.

    Returns:
      The same function, never raising either.
    """

    @functools.wraps(main)
    def guarded(*args: object, **keywords: object) -> int:
        try:
            status = main(*args, **keywords)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # What is left in the buffer would raise once more when the interpreter flushes it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except InputError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        except WriteError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1

    return guarded
