"""Removing the work folder of a finished run so that a kill in the middle of it does no harm."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["remove_work"]


def remove_work(folder: Path) -> None:
    """Removes a work folder: under its own name it is whole, or not there.

    A folder half removed would hold the status of tasks whose results are gone, and the next run would take them for
    done. What a kill has left of an earlier removal goes too.

    Args:
      folder: The folder, on which nobody is at work any more.
    """
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)
