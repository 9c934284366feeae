"""Results that are not made twice: of each is noted what it was made of, and no other is taken for it.

The note lies beside the file or folder, under its name with a dot before and `.made` behind. It goes before the result
is replaced and comes after it, so that no kill leaves the note of one beside another.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asccl_jax.data.atomic import PARTIAL_SUFFIX, write_atomically

__all__ = ["file_facts", "growing_folder", "is_made", "making"]

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
