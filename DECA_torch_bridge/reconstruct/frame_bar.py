"""A progress bar of the frames of the task under way: a single long clip is not done for half an hour."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

__all__ = ["counted", "counting_frames"]

Item = TypeVar("Item")

_SHOWN = contextvars.ContextVar("shown", default=False)


@contextlib.contextmanager
def counting_frames(shown: bool) -> Iterator[None]:
    """Lets `counted` show a bar in the block, on a terminal."""
    before = _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.reset(before)


def counted(frames: Iterable[Item], what: str, *, total: int | None = None) -> Iterator[Item]:
    """Yields the frames of a task and counts them on a bar, where one is wanted (`counting_frames`).

    Args:
      frames: Of one clip.
      what: What is done to them, in a word.
      total: How many there are; None where that is found out by reading them.
    """
    disabled = None if _SHOWN.get() else True
    return iter(tqdm(frames, desc=what, total=total, unit="frame", dynamic_ncols=True, leave=False, disable=disabled))
