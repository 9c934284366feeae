"""Folders that appear with all of their files or not at all, and whose making goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asccl_jax.data.atomic import PARTIAL_SUFFIX, write_atomically

__all__ = ["growing_folder"]

_MARK = ".settings.json"


@contextlib.contextmanager
def growing_folder(path: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Makes a folder under another name and gives it its own once the block is done; replaces what was there.

    Unlike `whole_folder` it keeps what an error or a kill has left unfinished, for the next call with equal settings.

    Args:
      path: The finished folder.
      settings: What decides its files, as JSON has it.

    Yields:
      The folder to fill: empty, or as an interrupted call has left it, the last files perhaps in part.
    """
    unfinished = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    content = json.dumps(settings, sort_keys=True)
    if _read(unfinished / _MARK) != content:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_atomically(unfinished / _MARK, content)
    yield unfinished
    if path.exists():
        shutil.rmtree(path)
    unfinished.rename(path)
    (path / _MARK).unlink()


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
