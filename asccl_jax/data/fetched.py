"""A data set in a bucket, fetched once into a folder of this machine's cache; an interrupted fetch goes on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import shutil
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from asccl_jax.cache_folder import user_cache
from asccl_jax.data.atomic import write_atomically
from asccl_jax.errors import InputError, WriteError, writing
from asccl_jax.remote_folder import RemoteFile, RemoteFolder, open_remote, reading, remote_address

__all__ = ["local_directory"]

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
        tqdm(total=size, unit="B", unit_scale=True, desc="fetching") as bar,
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
