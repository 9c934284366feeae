"""A run whose workdir is in a bucket: Orbax writes checkpoints there, all else passes through a folder on this disk.

The main process fetches what the run wrote before, and sends what is new: whole files, at each checkpoint and at the
end. What a checkpoint counts on is sent before it. The folder on the disk is a temporary one: the bucket alone says
what a run is, so another machine goes on where this one stopped.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax

from asccl_jax.buckets import AnyPath, RemoteFile, RemoteFolder, open_remote, reading, remote_address
from asccl_jax.errors import WriteError, bucket_errors, first_line, writing
from asccl_jax.weights import replaced_name
from asccl_jax.work import PARTIAL_SUFFIX, write_atomically

__all__ = ["CHECKPOINTS", "RunMirror", "mirrored_run", "workplace"]

CHECKPOINTS = "checkpoints"
"""Folder of a run that Orbax alone writes, on the disk or straight to the bucket."""

NETWORKS = ("initial", "best", "last")
"""Folders of a run that are replaced whole; a file directly in one says that it is whole."""

_LEFT_THERE = (CHECKPOINTS, "report")


@contextlib.contextmanager
def workplace(workdir: Path) -> Iterator[tuple[Path, RunMirror | None]]:
    """Opens a run's workdir, wherever it is; yields the folder to write to and, for a bucket, what sends it there."""
    address = remote_address(workdir)
    if address is None:
        yield workdir, None
    else:
        with mirrored_run(address) as mirror:
            yield mirror.local, mirror


@contextlib.contextmanager
def mirrored_run(address: str) -> Iterator[RunMirror]:
    """Opens a run in a bucket; the end of the block sends what is not there yet, unless the bucket has failed already.

    Args:
      address: `gs://BUCKET/FOLDER`.

    Raises:
      InputError: The bucket cannot be read.
      WriteError: The bucket cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="asccl-run-") as directory:
        mirror = RunMirror(open_remote(address), Path(directory))
        mirror.fetch()
        try:
            yield mirror
        except bucket_errors() as error:
            raise WriteError(f"cannot reach {address}: {first_line(error)}") from error
        mirror.send()


class RunMirror:
    """The files of a run here and in its bucket.

    With several processes every one may call the methods; the first works.

    Attributes:
      remote: The run's folder in the bucket.
      local: Folder on this disk that holds the same, but for checkpoints.
    """

    def __init__(self, remote: RemoteFolder, local: Path) -> None:
        self.remote = remote
        self.local = local
        self._sent: dict[str, tuple[int, int]] = {}

    @property
    def address(self) -> str:
        """Where the run is, for messages."""
        return self.remote.address

    @property
    def checkpoints(self) -> AnyPath:
        """Where Orbax writes."""
        return self.remote.path / CHECKPOINTS

    def fetch(self) -> None:
        """Fetches what the run wrote before.

        Raises:
          InputError: The bucket cannot be read.
          WriteError: The disk is full.
        """
        if jax.process_index() != 0:
            return
        with writing(self.local), reading(self.remote.address):
            there = self.remote.files()
            for _ in self.remote.fetch(_without(there, _LEFT_THERE), self.local):
                pass
        self._sent = self._stamps()

    def send(self) -> None:
        """Sends the files that are new or other than those sent before; returns once they are in the bucket.

        Raises:
          WriteError: The bucket cannot be reached, or denies access.
        """
        if jax.process_index() != 0:
            return
        stamps = self._stamps()
        changed = [name for name, stamp in stamps.items() if self._sent.get(name) != stamp]
        networks = {name.partition("/")[0] for name in changed} & set(NETWORKS)
        with writing(self.address):
            for network in sorted(networks):
                self._replace(network, [name for name in stamps if name.startswith(f"{network}/")])
            self.remote.send(self.local, [name for name in changed if name.partition("/")[0] not in networks])
        self._sent = stamps

    def name_bucket(self, folder: str) -> None:
        """Writes the bucket's address where the pages of a folder name the one on this disk, which will be gone."""
        for page in (self.local / folder).glob("*.html"):
            text = page.read_text(encoding="utf-8")
            write_atomically(page, text.replace(str(self.local), self.address))

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Returns size and time of each file here that belongs to the run, by name."""
        paths = [path for path in sorted(self.local.rglob("*")) if path.is_file()]
        names = {path.relative_to(self.local).as_posix(): path.stat() for path in paths}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in names.items() if _is_sent(name)}

    def _replace(self, network: str, names: Iterable[str]) -> None:
        """Replaces a network such that a kill leaves a whole one, old or new, where `load_weights` finds it."""
        there = self.remote.files()
        old, kept = _below(there, network), _below(there, replaced_name(network))
        if any(_is_description(name) for name in old):
            self._remove(kept)
            renamed = {name: f"{replaced_name(network)}/{name.partition('/')[2]}" for name in old}
            for part in _contents_first(old):
                self.remote.copy({name: renamed[name] for name in part})
            kept = list(renamed.values())
        self._remove(old)
        for part in _contents_first(names):
            self.remote.send(self.local, part)
        self._remove(kept)

    def _remove(self, names: Iterable[str]) -> None:
        contents, description = _contents_first(names)
        self.remote.remove(description)
        self.remote.remove(contents)


def _contents_first(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Parts a network's files into its arrays and its description, in the order in which they may appear."""
    names = list(names)
    return [name for name in names if not _is_description(name)], [name for name in names if _is_description(name)]


def _is_description(name: str) -> bool:
    return name.count("/") == 1


def _is_sent(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(PARTIAL_SUFFIX)


def _below(files: Mapping[str, RemoteFile], folder: str) -> list[str]:
    return [name for name in files if name.startswith(f"{folder}/")]


def _without(files: Mapping[str, RemoteFile], folders: Iterable[str]) -> dict[str, RemoteFile]:
    return {name: file for name, file in files.items() if name.partition("/")[0] not in folders}
