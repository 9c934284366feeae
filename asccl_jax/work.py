"""Ways to write that lose nothing: atomic files, keyed folders that resume, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asccl_jax.errors import InputError, writing
from asccl_jax.paths import cut_name

__all__ = [
    "PARTIAL_SUFFIX",
    "atomic_file",
    "claim_folder",
    "file_facts",
    "fingerprint",
    "growing_folder",
    "is_made",
    "making",
    "remove_file",
    "require_writable_file",
    "require_writable_folder",
    "sole_writer",
    "temporary_name",
    "write_atomically",
]

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


# What a command is to write to, looked at before any work: a folder or a file where the system lets it write.

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


# Results that are not made twice: of each is noted what it was made of, and no other is taken for it.
#
# The note lies beside the file or folder, under its name with a dot before and `.made` behind. It goes before the
# result is replaced and comes after it, so that no kill leaves the note of one beside another.

_MARK = ".settings.json"


@contextlib.contextmanager
def growing_folder(path: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Makes a folder under another name and gives it its own once the block is done; replaces what was there.

    Unlike `whole_folder` it keeps what an error or a kill has left unfinished, for the next call with equal settings.
    `is_made` tells of the finished folder.

    Args:
      path: The finished folder.
      settings: All that decides its files, as JSON has it.

    Yields:
      The folder to fill: empty, or as an interrupted call has left it, the last files perhaps in part.
    """
    unfinished = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    content = _content(settings)
    if _read(unfinished / _MARK) != content:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_atomically(unfinished / _MARK, content)
    yield unfinished
    with making(path, settings):
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
        (path / _MARK).unlink()


def is_made(path: Path, settings: Mapping[str, Any]) -> bool:
    """Returns whether a file or folder is there that was made with these very settings; see `making`."""
    return path.exists() and _read(_note(path)) == _content(settings)


@contextlib.contextmanager
def making(path: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Notes what a file or folder is made of, once the block has made it.

    Args:
      path: The result; its folder must exist.
      settings: All that decides it, as JSON has it: what its sources hold, weights, options, a version of the program.
    """
    _note(path).unlink(missing_ok=True)
    yield
    write_atomically(_note(path), _content(settings))


def file_facts(*paths: Path | None) -> list[Any]:
    """Returns what changes when one of the files, or of the files anywhere in one of the folders, does."""
    found: list[Any] = []
    for path in paths:
        if path is None or not path.exists():
            found.append(None)
            continue
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files if file.is_file()]
        found.append([str(path.resolve()), [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]])
    return found


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.made")


def _content(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


# Folders in which one run writes at a time.

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


# Output folders that remember what made them, so that no run mixes its results with another's.


def claim_folder(output: Path, name: str, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Marks a folder, which is made if need be, as holding results of some settings.

    Args:
      output: The folder.
      name: File in it that tells the settings.
      settings: What decides the results, as JSON has it.
      overwrite: Take it over from others.

    Raises:
      InputError: It holds results of others.
    """
    path = output / name
    content = json.dumps(settings, indent=1) + "\n"
    if path.is_file() and not overwrite and path.read_text(encoding="utf-8") != content:
        raise InputError(
            f"--output {output}: {name} there tells of other settings; give another folder, or --overwrite to make all"
            " of it again"
        )
    with writing(path):
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def fingerprint(weights: Any) -> str:
    """Returns a number that other weights do not have, as text."""
    import jax  # only here: most of what writes files needs no JAX, which takes a second to import

    found = 0
    for leaf in jax.tree.leaves(weights):
        found = zlib.crc32(np.ascontiguousarray(leaf).data.cast("B"), found)
    return f"{found:08x}"
