"""What an iterator gives, made ahead of time by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["prefetched"]

Item = TypeVar("Item")


_LOOK_S = 0.1


class _End:
    """Marks the end, and holds the exception that brought it about, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterable[Item], *, depth: int = 2) -> Iterator[Item]:
    """Yields the items in their order while a thread makes the next ones.

    What the items raise is raised here, in its place. The thread ends with the iterator, read to its end or not.

    >>> list(prefetched(range(3)))
    [0, 1, 2]

    Args:
      items: Made one after the other, by the thread alone.
      depth: Most items that wait.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    left = threading.Event()

    def give(item: Item | _End) -> None:
        while not left.is_set():
            try:
                return waiting.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                give(item)
                if left.is_set():
                    return
        except BaseException as caught:  # raised again where the items are read
            error = caught
        give(_End(error))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        left.set()
        thread.join()
