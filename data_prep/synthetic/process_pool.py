"""Worker processes that keep to one core each."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.pool
import os
from collections.abc import Iterator

__all__ = ["process_pool"]

# Threads of the linear algebra libraries: in a pool they only wait for each other.
_SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[multiprocessing.pool.Pool]:
    """Gives a pool of fresh processes, safe whatever threads this process runs."""
    before = {name: os.environ.get(name) for name in _SINGLE}
    os.environ.update(_SINGLE)  # read by a library when it loads, so the children must be born with it
    try:
        pool = multiprocessing.get_context("spawn").Pool(workers)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    with pool:
        yield pool
