"""Results kept under a fingerprint of the files and settings they came from, so that a run can be taken up again."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from asccl_jax.errors import writing
from asccl_jax.paths import name_hash
from asccl_jax.work import atomic_file
from data_prep.media.decode import IMAGE_SUFFIXES, BrokenMediaError

__all__ = ["VERSION", "Arrays", "Fingerprints", "ScoreCache", "digest"]

VERSION = 2
"""Raised when what is computed changes, so that older results are not taken for it."""

Arrays = dict[str, np.ndarray]


def digest(*parts: str) -> str:
    """Returns a name that other texts do not have."""
    return name_hash(str(VERSION), *parts)[:24]


class Fingerprints:
    """Digests of what files hold, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """Returns the digest of a file, or of a folder's pictures with their names.

        Raises:
          BrokenMediaError: It cannot be read.
        """
        with self._lock:
            known = self._known.get(path)
        if known is None:
            try:
                known = _folder(path) if path.is_dir() else _file(path)
            except OSError as error:
                raise BrokenMediaError(f"cannot be read: {error.strerror}") from error
            with self._lock:
                self._known[path] = known
        return known


class ScoreCache:
    """Arrays by name, one file each, written whole or not at all.

    Args:
      directory: Where they lie; made if need be.
    """

    def __init__(self, directory: Path) -> None:
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def find(self, kind: str, key: str) -> Arrays | None:
        """Returns stored arrays, or None where there are none or the file is damaged."""
        try:
            with self._path(kind, key).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None

    def has(self, kind: str, key: str) -> bool:
        """Returns whether arrays are stored, without reading them."""
        return self._path(kind, key).is_file()

    def store(self, kind: str, key: str, arrays: Arrays) -> None:
        """Stores arrays."""
        path = self._path(kind, key)
        unnamed: dict[str, Any] = arrays
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                np.savez(file, allow_pickle=False, **unnamed)

    def _path(self, kind: str, key: str) -> Path:
        return self._directory / kind / f"{key}.npz"


def _file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path) -> str:
    found = hashlib.sha256()
    for one in sorted(path.iterdir()):
        if one.suffix.lower() in IMAGE_SUFFIXES and one.stem.isdecimal():
            found.update(os.fsencode(f"{one.name} {_file(one)}\n"))
    return found.hexdigest()
