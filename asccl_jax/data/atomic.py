"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from asccl_jax.file_names import cut_name

__all__ = ["PARTIAL_SUFFIX", "atomic_file", "remove_file", "temporary_name", "write_atomically"]

PARTIAL_SUFFIX = ".partial"
"""Ending of the temporary name; a file that bears it was left by a process that was killed."""

_NAME_BYTES = 200
"""Of a file's name that its temporary name repeats; 42 more come to it, and file systems hold 255."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing under a temporary name and gives it its own name once it is whole and on the disk.

    The temporary name is unlike any other, so that two processes writing the same file do not mix their bytes.

    Args:
      path: Name of the finished file; replaced if it exists. Its directory must exist.

    Yields:
      The open file. An exception inside the block discards it and leaves `path` as it was.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    r"""Writes a file that is seen either as it was or with all of `content` (text as UTF-8).

    Lone surrogates, which stand for bytes of file names that are not UTF-8, become `\udcXX`: JSON gives them back.
    """
    with atomic_file(path) as file:
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def temporary_name(path: Path) -> Path:
    """Returns a hidden name beside a file's own, unlike any other, and no longer than a name may be."""
    return path.with_name(f".{cut_name(path.name, _NAME_BYTES)}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")


def remove_file(path: Path) -> None:
    """Removes a file, if it is there, such that no crash brings it back."""
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
