"""Cores, and one thread for all libraries: what is shared out among threads is rounded by how many there are."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

__all__ = ["available_cores", "one_thread"]


def available_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Gives the block's linear algebra one thread, so that results are the same whatever the number of cores.

    Several cores are used by several processes. Reaches the libraries that are loaded by now: what loads PyTorch inside
    a block computes in a block of its own.
    """
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)
