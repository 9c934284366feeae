"""Folders in which one run writes at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from asccl_jax.errors import InputError, writing
from asccl_jax.outputs import require_writable_folder

__all__ = ["sole_writer"]

_HELD: set[int] = set()
"""Descriptors by which this process holds folders."""


@contextlib.contextmanager
def sole_writer(folder: Path, option: str, *, shared: bool = False) -> Iterator[int]:
    """Makes a folder, if need be, and holds it; yields a descriptor which children may keep open, and so hold it, too.

    The system itself holds the folder, for as long as the process lives: a run that is killed leaves nothing behind
    that keeps others out. A folder that was made for nothing is removed again. Where a file system does not know such
    holds (some that are shared by machines), any run may write.

    Args:
      folder: Where the run writes.
      option: What the user names it by, for messages.
      shared: Let others in who share it, too, but nobody who wants it alone.

    Raises:
      InputError: It is a file, nothing can be written there, or another run holds it.
      WriteError: It cannot be made.
    """
    require_writable_folder(folder, option)
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    _close_in_forks()
    _HELD.add(descriptor)
    try:
        _hold(descriptor, f"{option} {folder}", fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield descriptor
    finally:
        _HELD.discard(descriptor)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(descriptor)


def _hold(descriptor: int, name: str, how: int) -> None:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InputError(f"{name}: another run works there; wait for it, or end it") from error


@functools.cache
def _close_in_forks() -> None:
    """Lets no forked worker hold a folder: it may outlive a run that is killed, and wait for ever."""
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    while _HELD:
        os.close(_HELD.pop())
