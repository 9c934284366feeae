"""A folder in a bucket, `gs://BUCKET/FOLDER`: its files listed, fetched, sent, copied and removed, each of them whole.

Only who names such a folder imports gcsfs, which the extra `gcs` brings.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import google_crc32c

from asccl_jax.data.atomic import temporary_name
from asccl_jax.errors import InputError, bucket_errors, first_line

if TYPE_CHECKING:
    from etils import epath

    AnyPath: TypeAlias = Path | epath.Path
else:
    AnyPath = PurePath  # which both are; etils is for those who name a bucket
"""A path on a disk, or one of etils' in a bucket, which has the same methods but for what `stat` returns."""

__all__ = ["AnyPath", "RemoteFile", "RemoteFolder", "located", "open_remote", "reading", "remote_address"]

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
