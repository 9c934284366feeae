"""The exceptions a person may see: bad input, a full disk, a diverged training; each named, with what to do."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import TypeGuard

from asccl_jax.paths import expand_home, readable

__all__ = [
    "DivergedError",
    "InputError",
    "WriteError",
    "bucket_errors",
    "exit_on_input_error",
    "first_line",
    "require_torch",
    "writing",
]


_OF_THE_DISK = frozenset(
    [errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG, errno.ENOSPC, errno.EPERM, errno.EROFS]
)
"""What no program can foresee of a disk, and no traceback explains."""


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


class DivergedError(RuntimeError):
    """Training stopped because a scalar was not finite, in all of its processes alike.

    The message is one line that names scalar, step and the last good checkpoint. Entry points print it without a
    traceback and exit with status 1.
    """


@contextlib.contextmanager
def writing(path: PurePath | str) -> Iterator[None]:
    """Turns the system's errors in a block that writes into `WriteError`.

    Args:
      path: The file or folder that is written, or its address in a bucket, for the message.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or first_line(error)}") from error
    except bucket_errors() as error:
        raise WriteError(f"cannot write {path}: {first_line(error)}") from error
    except ValueError as error:
        # TensorStore, with which Orbax writes arrays, wraps the system's error, or a bucket's, into its own message.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is not None:
            raise WriteError(f"cannot write {path}: {os.strerror(int(code[1]))}") from error
        if re.search(r"^[A-Z_]+: .*gs://|gs://.*\[tensorstore_spec=", str(error)) is None:
            raise
        raise WriteError(f"cannot write {path}: {first_line(error).partition(' [')[0]}") from error


def bucket_errors() -> tuple[type[Exception], ...]:
    """Returns what the libraries for buckets raise that is no `OSError`; nothing where none of them is in use."""
    if "gcsfs" not in sys.modules:
        return ()
    from aiohttp import ClientError
    from gcsfs.retry import ChecksumError, HttpError, NonRetryableError
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return ClientError, ChecksumError, HttpError, NonRetryableError, GoogleAPIError, GoogleAuthError


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its kind where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def exit_on_input_error(main: Callable[..., int]) -> Callable[..., int]:
    """Wraps an entry point: `InputError` becomes one line on stderr and exit status 2, others of this module 1.

    A reader that leaves (`| head`) ends it quietly, with the status that a shell gives such a program. What is printed
    of a path may be bytes that are no text: a terminal that takes UTF-8 gets them as they are, another one spelled out.
    A platform that `JAX_PLATFORMS` asks for in vain is bad input. In the words of the command `~` is the home folder.

    Args:
      main: Function that returns the process's exit status; its first argument may be the words of the command.

    Returns:
      The same function, never raising any of them.
    """

    @functools.wraps(main)
    def guarded(*args: object, **keywords: object) -> int:
        _print_anything(sys.stdout)
        try:
            status = main(*_with_home(args), **keywords)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # What is left in the buffer would raise once more when the interpreter flushes it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except InputError as error:
            sys.stderr.write(f"error: {readable(str(error))}\n")
            return 2
        except (WriteError, DivergedError) as error:
            sys.stderr.write(f"error: {readable(str(error))}\n")
            return 1
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise
            what = f"{error.filename}: " if error.filename else ""
            sys.stderr.write(f"error: {readable(what)}{error.strerror}\n")
            return 1
        except Exception:
            if (missing := _missing_platform()) is None:
                raise
            sys.stderr.write(f"error: {missing}\n")
            return 2

    return guarded


def _print_anything(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape" if stream.encoding.lower() == "utf-8" else "backslashreplace")


def _with_home(arguments: tuple[object, ...]) -> tuple[object, ...]:
    if not arguments:
        sys.argv[1:] = map(expand_home, sys.argv[1:])
        return arguments
    words, *rest = arguments
    expanded = [expand_home(word) if isinstance(word, str) else word for word in words] if _is_list(words) else words
    return expanded, *rest


def _is_list(words: object) -> TypeGuard[Sequence[object]]:
    return isinstance(words, Sequence) and not isinstance(words, str)


def _missing_platform() -> str | None:
    """Returns what to say where JAX cannot start on the platform that it was told to; else None."""
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked or "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # an assertion for CUDA whose plugin is not installed
        jax.config.update("jax_platforms", "")
        present = sorted({device.platform for device in jax.devices()})
        return (
            f"JAX_PLATFORMS asks for {asked}, this jax has {', '.join(present)}: unset it, or install JAX for {asked}"
        )
    return None


def require_torch(purpose: str) -> None:
    """Raises an `InputError` that says how to install PyTorch where it is missing.

    Args:
      purpose: What needs it, as the start of a sentence.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"{purpose} needs PyTorch, which is not installed: pip install 'asccl-jax[bridge]'")
