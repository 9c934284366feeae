"""Folders in buckets: their files read, written and listed, data sets copied to the local cache."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import google_crc32c

from asccl_jax.errors import InputError, WriteError, bucket_errors, first_line, writing
from asccl_jax.paths import user_cache
from asccl_jax.progress import ProgressBar
from asccl_jax.work import temporary_name, write_atomically

if TYPE_CHECKING:
    from etils import epath

    AnyPath: TypeAlias = Path | epath.Path
else:
    AnyPath = PurePath  # which both are; etils is for those who name a bucket
"""A path on a disk, or one of etils' in a bucket, which has the same methods but for what `stat` returns."""

__all__ = [
    "AnyPath",
    "RemoteFile",
    "RemoteFolder",
    "local_directory",
    "located",
    "open_remote",
    "reading",
    "remote_address",
]

# Only who names such a folder imports gcsfs, which the extra `gcs` brings.

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_AT_ONCE = 16
"""Files that travel side by side."""


def remote_address(path: str | os.PathLike[str]) -> str | None:
    """Returns the address in a bucket that a path names, or None for a path on a disk.

    >>> remote_address("gs://bucket/runs/x/")
    'gs://bucket/runs/x'
    >>> remote_address(Path("gs://bucket/runs/x"))  # pathlib makes one slash of two
    'gs://bucket/runs/x'
    >>> remote_address("runs/x")
    """
    match = re.match(r"gs:/{1,2}(?!/)(.*)", os.fspath(path), flags=re.DOTALL)
    return f"gs://{match[1].rstrip('/')}" if match else None


def located(path: Path) -> AnyPath:
    """Returns a path as it is, or as Orbax takes it where it is in a bucket.

    Raises:
      InputError: It is in a bucket, and that cannot be read.
    """
    address = remote_address(path)
    return path if address is None else open_remote(address).path


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file as the bucket lists it: its bytes, and their CRC32C in base64 where the bucket keeps one."""

    size: int
    crc32c: str | None


def open_remote(address: str) -> RemoteFolder:
    """Returns a folder in a bucket that can be listed; it need not hold anything yet.

    Raises:
      InputError: Not `gs://BUCKET/FOLDER`, gcsfs is not installed, or the bucket cannot be listed.
    """
    bucket, _, folder = address.removeprefix("gs://").partition("/")
    if not bucket or not folder:
        raise InputError(f"{address}: expected gs://BUCKET/FOLDER")
    try:
        import gcsfs  # noqa: F401  (fsspec finds it by its name)
    except ImportError as error:
        raise InputError(
            f'{address}: buckets need gcsfs, which is not installed: pip install "asccl-jax[gcs]"'
        ) from error
    import fsspec

    # It logs each failure with its traceback before it raises it.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Other machines write to the bucket, too: a listing is old as soon as it is made. Orbax's paths obey this as well.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    remote = RemoteFolder(address, fsspec.filesystem("gcs"))
    with reading(address):
        remote.files()
    return remote


@contextlib.contextmanager
def reading(address: str) -> Iterator[None]:
    """Turns what goes wrong with a bucket in a block that reads from it into `InputError`; a full disk stays one."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise
        reason = "no such bucket or file, or no right to see it" if isinstance(error, FileNotFoundError) else None
        raise _unreadable(address, reason or first_line(error)) from error
    except bucket_errors() as error:
        raise _unreadable(address, first_line(error)) from error


def _unreadable(address: str, reason: str) -> InputError:
    return InputError(
        f"cannot read {address}: {reason}; `gcloud storage ls {address}` shows whether it is there and these"
        " credentials may read it"
    )


class RemoteFolder:
    """The files under one address, named by their paths relative to it.

    Its methods raise what the bucket's library raises; see `errors.writing` and `reading`.

    Args:
      address: Where.
      filesystem: fsspec's file system there.
    """

    def __init__(self, address: str, filesystem: Any) -> None:
        self.address = address
        self._filesystem = filesystem
        self._root = str(filesystem._strip_protocol(address))

    @property
    def path(self) -> AnyPath:
        """The folder as Orbax takes it."""
        from etils import epath

        return epath.Path(self.address)

    def files(self) -> dict[str, RemoteFile]:
        """Returns all files below, by name; none where there is no such folder yet."""
        root = self._at("")
        found = self._filesystem.find(root, detail=True)
        return {
            name[len(root) :]: RemoteFile(entry["size"], entry.get("crc32c"))
            for name, entry in found.items()
            if name.startswith(root) and not name.endswith("/")
        }

    def fetch(self, files: Mapping[str, RemoteFile], directory: Path) -> Iterator[str]:
        """Fetches files into a folder and yields the name of each once it is there, whole and with its checksum right.

        Raises:
          InputError: What arrived is not what the bucket listed.
        """
        names = list(files)
        for first in range(0, len(names), _AT_ONCE):
            chunk = names[first : first + _AT_ONCE]
            arriving = [temporary_name(directory / name) for name in chunk]
            for path in arriving:
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._filesystem.get([self._at(name) for name in chunk], [str(path) for path in arriving])
                for name, path in zip(chunk, arriving, strict=True):
                    self._check(path, name, files[name])
                    path.replace(directory / name)
                    yield name
            finally:
                for path in arriving:
                    path.unlink(missing_ok=True)

    def send(self, directory: Path, names: Sequence[str]) -> None:
        """Sends files of a folder; each replaces what was there once all of it has arrived."""
        if names:
            self._filesystem.put([str(directory / name) for name in names], [self._at(name) for name in names])

    def copy(self, names: Mapping[str, str]) -> None:
        """Copies files inside the bucket, without a way through this machine.

        Args:
          names: New name of each.
        """
        if names:
            self._filesystem.copy([self._at(old) for old in names], [self._at(new) for new in names.values()])

    def remove(self, names: Sequence[str]) -> None:
        """Removes files."""
        if names:
            self._filesystem.rm([self._at(name) for name in names])

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _check(self, path: Path, name: str, listed: RemoteFile) -> None:
        size = path.stat().st_size
        if size != listed.size or (listed.crc32c is not None and _crc32c(path) != listed.crc32c):
            raise InputError(
                f"{self.address}/{name}: {size} bytes arrived that are not the {listed.size} bytes listed before; it is"
                " being written, or broke on its way: try again"
            )


def _crc32c(path: Path) -> str:
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


# A data set in a bucket, fetched once into a folder of this machine's cache; an interrupted fetch goes on.

_LOG = logging.getLogger(__name__)

_INDEX = ".fetched.jsonl"
"""What was fetched, a line a file, with the size and checksum that the bucket listed then."""


def local_directory(directory: str | Path) -> Path:
    """Returns where a data set lies on this machine's disk, after it was fetched if `directory` is in a bucket.

    The cache is `$XDG_CACHE_HOME/asccl-jax/data` (else `~/.cache/...`), so point it to a disk that is large enough.
    Only what the bucket lists with another size or checksum than last time is fetched again. Of the processes of a
    machine one fetches; the others wait for it.

    Args:
      directory: A folder, or `gs://BUCKET/FOLDER`.

    Raises:
      InputError: The bucket cannot be read, or holds nothing there.
      WriteError: The disk is full.
    """
    address = remote_address(directory)
    if address is None:
        return Path(directory)
    remote = open_remote(address)
    cache = user_cache()
    if cache is None:
        raise WriteError(
            f"cannot fetch {address}: this user has no home; set XDG_CACHE_HOME to a folder on a large disk"
        )
    name = urllib.parse.quote(address.removeprefix("gs://"), safe="")
    local = cache / "data" / name
    with writing(local):
        local.mkdir(parents=True, exist_ok=True)
        with _one_process_at_a_time(local), reading(address):
            mirror_folder(remote, local)
    return local


def mirror_folder(remote: RemoteFolder, local: Path) -> None:
    """Makes a folder hold what a bucket's holds, fetching only what is not there yet.

    Args:
      remote: Folder in the bucket.
      local: Folder that nothing else writes to.
    """
    listed = remote.files()
    if not listed:
        raise InputError(f"{remote.address}: no files there; copy a data set to it, or give another folder")
    noted = _read_index(local)
    here = {name: file for name, file in listed.items() if _is_here(local, name, file, noted)}
    for name in noted.keys() - listed.keys():
        (local / name).unlink(missing_ok=True)
    if here != noted:
        write_atomically(local / _INDEX, "".join(_line(name, file) for name, file in here.items()))
    if missing := {name: file for name, file in listed.items() if name not in here}:
        _fetch(remote, local, missing)


def _fetch(remote: RemoteFolder, local: Path, missing: Mapping[str, RemoteFile]) -> None:
    size = sum(file.size for file in missing.values())
    free = shutil.disk_usage(local).free
    if size > free:
        raise WriteError(
            f"cannot fetch {remote.address} to {local}: {size / 1e9:.1f} GB to fetch, {free / 1e9:.1f} GB free;"
            " set XDG_CACHE_HOME to a folder on a larger disk"
        )
    _LOG.info("fetching %d files of %s to %s", len(missing), remote.address, local)
    with (
        ProgressBar(total=size, unit="B", unit_scale=True, desc="fetching") as bar,
        (local / _INDEX).open("a", encoding="utf-8") as index,
    ):
        for name in remote.fetch(missing, local):
            # A file is noted once it is there: a kill in between costs this one again.
            index.write(_line(name, missing[name]))
            index.flush()
            bar.update(missing[name].size)


def _is_here(local: Path, name: str, file: RemoteFile, noted: Mapping[str, RemoteFile]) -> bool:
    path = local / name
    return noted.get(name) == file and path.is_file() and path.stat().st_size == file.size


def _line(name: str, file: RemoteFile) -> str:
    return json.dumps([name, file.size, file.crc32c]) + "\n"


def _read_index(local: Path) -> dict[str, RemoteFile]:
    path = local / _INDEX
    if not path.is_file():
        return {}
    *lines, unfinished = path.read_text(encoding="utf-8").split("\n")
    del unfinished
    return {name: RemoteFile(size, crc32c) for name, size, crc32c in map(json.loads, lines)}


@contextlib.contextmanager
def _one_process_at_a_time(local: Path) -> Iterator[None]:
    with (local / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
