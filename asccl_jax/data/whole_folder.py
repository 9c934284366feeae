"""Folders that appear with all of their files or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from asccl_jax.data.atomic import PARTIAL_SUFFIX

__all__ = ["whole_folder"]


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Makes a folder under another name and gives it its own once the block is done; replaces what was there.

    Args:
      path: The finished folder.

    Yields:
      The folder to fill, empty. An exception inside the block discards it and leaves `path` as it was.
    """
    unfinished = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(path)
    unfinished.rename(path)
