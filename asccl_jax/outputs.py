"""What a command is to write to, looked at before any work: a folder or a file where the system lets it write."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from asccl_jax.errors import InputError

__all__ = ["require_writable_file", "require_writable_folder"]

_PROBE = b"\0" * 4096
"""Written to see whether there is room at all."""


def require_writable_folder(path: Path, option: str = "--output") -> None:
    """Refuses a folder that is not there and cannot be made, or in which nothing can be written; makes nothing.

    Args:
      path: The folder.
      option: What the user names it by.

    Raises:
      InputError: One line with the system's reason.
    """
    named = f"{option} {path}"
    with _refusing(named):
        if path.exists() and not path.is_dir():
            raise InputError(f"{named}: is a file, expected a folder")
        _try_writing(path.absolute())


def require_writable_file(path: Path, option: str = "--output") -> None:
    """Refuses a file whose folder is not there and cannot be made, or in which nothing can be written.

    Args:
      path: The file; a folder that is replaced as a whole is one, too, if it is not there yet.
      option: What the user names it by.

    Raises:
      InputError: One line with the system's reason.
    """
    named = f"{option} {path}"
    with _refusing(named):
        if path.is_dir():
            raise InputError(f"{named}: is a folder, expected the name of a file")
        _try_writing(path.absolute().parent)


def _try_writing(folder: Path) -> None:
    """Writes in the folder, or in the nearest one above it that is there."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        file.write(_PROBE)


@contextlib.contextmanager
def _refusing(named: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{named}: cannot be written ({error.strerror}); name another") from error
