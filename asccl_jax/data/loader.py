"""Batches for training and evaluation, read ahead by threads, as Grain iterators.

Rows of a global batch are decoded straight into its memory, so Grain passes indices through shuffle, repeat and batch,
and images appear in the last step only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Bool, Int

from asccl_jax.errors import InputError
from asccl_jax.types import PairBatch

__all__ = ["PairSource", "evaluation_batches", "training_batches"]


@runtime_checkable
class PairSource(Protocol):
    """Anything that makes a batch of some of its pairs; `pairs.FramePairs` is one. Must be safe to call in threads."""

    def __len__(self) -> int: ...

    def batch(self, indices: Int[np.ndarray, " b"]) -> PairBatch:
        """Returns the pairs of some indices."""
        ...


def training_batches(
    source: PairSource,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
    prefetch: int = 4,
) -> grain.DatasetIterator[PairBatch]:
    """Returns this process's part of endless shuffled batches.

    An epoch is a permutation of all pairs, another one each time; a batch may span two epochs. Global batches are the
    same for any number of processes: process p of n gets rows p b to (p + 1) b of each, b = batch_size / n. The state
    of the iterator is the number of batches taken, so it too fits any number of processes; `grain.checkpoint` saves it.

    Args:
      source: The pairs.
      batch_size: Pairs of a global batch.
      seed: Seed of the order.
      process_index: Which part of each batch.
      process_count: Processes that share a batch.
      threads: Threads that read and decode; 0 does both in `next`.
      prefetch: Batches held ready; each costs its images' bytes.

    Returns:
      An iterator of batches of NumPy arrays. `close()` it to end its threads.

    Raises:
      InputError: At once for sizes that do not fit; from `next` for a damaged record.
    """
    if not len(source):
        raise InputError("no pairs to train on")
    rows = _process_rows(batch_size, process_index, process_count)
    # Grain takes seed + epoch as an epoch's seed; hashed, runs of neighbouring seeds do not share epochs.
    order_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return iter(
        grain.MapDataset.range(len(source))
        .shuffle(seed=order_seed)
        .repeat()
        .batch(batch_size, drop_remainder=True)  # endless, so nothing is dropped; rounding up overflows for size 1
        .map(lambda indices: source.batch(indices[rows]))
        .to_iter_dataset(_read_options(threads, prefetch))
    )


def evaluation_batches(
    source: PairSource,
    *,
    batch_size: int,
    indices: Sequence[int] | Int[np.ndarray, " n"] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
    prefetch: int = 4,
) -> Iterator[tuple[PairBatch, Bool[np.ndarray, " b"]]]:
    """Yields this process's part of each batch of a fixed list of pairs, once and in order.

    Every batch has the same size, so that a jitted step compiles once: the last one is filled up with its last pair.

    Args:
      source: The pairs.
      batch_size: Pairs of a global batch.
      indices: Which pairs; all by default.
      process_index: Which part of each batch, as in `training_batches`.
      process_count: Processes that share a batch.
      threads: Threads that read and decode; 0 does both in `next`.
      prefetch: Batches held ready.

    Yields:
      A batch, and which of its rows are pairs of the list rather than filling.

    Raises:
      InputError: Sizes that do not fit, no pairs, or a damaged record.
    """
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)
    if not chosen.size:
        raise InputError("no pairs to evaluate")
    rows = _process_rows(batch_size, process_index, process_count)
    batches = -(-chosen.size // batch_size)
    places = np.arange(batches * batch_size).reshape(batches, batch_size)[:, rows]
    valid = places < chosen.size
    picked = chosen[np.minimum(places, chosen.size - 1)]
    iterator = iter(
        grain.MapDataset.range(batches)
        .map(lambda batch: (source.batch(picked[batch]), valid[batch]))
        .to_iter_dataset(_read_options(threads, prefetch))
    )
    try:
        yield from iterator
    finally:
        iterator.close()


def _process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    if process_count < 1 or not 0 <= process_index < process_count:
        raise InputError(f"process {process_index} of {process_count}: expected an index below the count")
    if batch_size < 1 or batch_size % process_count:
        raise InputError(f"batch_size={batch_size}: expected a positive multiple of the {process_count} processes")
    size = batch_size // process_count
    return slice(process_index * size, (process_index + 1) * size)


def _read_options(threads: int, prefetch: int) -> grain.ReadOptions:
    if threads < 0 or prefetch < 1:
        raise InputError(f"threads={threads}, prefetch={prefetch}: expected at least 0 and at least 1")
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
