"""Batches for training and evaluation, read ahead by threads, as Grain iterators.

Rows of a global batch are decoded straight into its memory, so Grain passes indices through shuffle, repeat and batch,
and images appear in the last step only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import grain
import numpy as np
from jaxtyping import Bool, Int

from asccl_jax.errors import InputError

__all__ = [
    "ExampleSource",
    "evaluation_batches",
    "process_rows",
    "read_options",
    "shuffled_batches",
    "training_batches",
]

Batch = TypeVar("Batch")
BatchMade = TypeVar("BatchMade", covariant=True)


@runtime_checkable
class ExampleSource(Protocol[BatchMade]):
    """Anything that makes a batch of some of its examples, as `pairs.FramePairs` does.

    Must be safe to call in threads.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: Int[np.ndarray, " b"]) -> BatchMade:
        """Returns the examples of some indices."""
        ...


def training_batches(
    source: ExampleSource[Batch],
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
    prefetch: int = 4,
) -> grain.DatasetIterator[Batch]:
    """Returns this process's part of endless shuffled batches.

    An epoch is a permutation of all examples, another one each time; a batch may span two epochs. Global batches are
    the same for any number of processes: process p of n gets rows p b to (p + 1) b of each, b = batch_size / n. The
    state of the iterator is the number of batches taken, so it too fits any number of processes; `grain.checkpoint`
    saves it.

    Args:
      source: The examples.
      batch_size: Examples of a global batch.
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
    rows = process_rows(batch_size, process_index, process_count)
    return iter(
        shuffled_batches(len(source), batch_size=batch_size, seed=seed)
        .map(lambda indices: source.batch(indices[rows]))
        .to_iter_dataset(read_options(threads, prefetch))
    )


def shuffled_batches(length: int, *, batch_size: int, seed: int, stream: int = 0) -> grain.MapDataset[Any]:
    """Returns the indices of endless global batches, an epoch being a permutation of all; batch k is item k.

    Args:
      length: Examples there are.
      batch_size: Examples of a batch.
      seed: Seed of the order.
      stream: Number of one of several orders of that seed that have nothing to do with each other.

    Raises:
      InputError: There is no example.
    """
    if not length:
        raise InputError("no examples to train on")
    # Grain takes seed + epoch as an epoch's seed; hashed, runs of neighbouring seeds do not share epochs.
    order_seed = int(np.random.SeedSequence(seed).generate_state(stream + 1)[stream])
    return (
        grain.MapDataset.range(length)
        .shuffle(seed=order_seed)
        .repeat()
        .batch(batch_size, drop_remainder=True)  # endless, so nothing is dropped; rounding up overflows for size 1
    )


def evaluation_batches(
    source: ExampleSource[Batch],
    *,
    batch_size: int,
    indices: Sequence[int] | Int[np.ndarray, " n"] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
    prefetch: int = 4,
) -> Iterator[tuple[Batch, Bool[np.ndarray, " b"]]]:
    """Yields this process's part of each batch of a fixed list of examples, once and in order.

    Every batch has the same size, so that a jitted step compiles once: the last one is filled up with its last example.

    Args:
      source: The examples.
      batch_size: Examples of a global batch.
      indices: Which examples; all by default.
      process_index: Which part of each batch, as in `training_batches`.
      process_count: Processes that share a batch.
      threads: Threads that read and decode; 0 does both in `next`.
      prefetch: Batches held ready.

    Yields:
      A batch, and which of its rows are examples of the list rather than filling.

    Raises:
      InputError: Sizes that do not fit, no examples, or a damaged record.
    """
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)
    if not chosen.size:
        raise InputError("no examples to evaluate")
    rows = process_rows(batch_size, process_index, process_count)
    batches = -(-chosen.size // batch_size)
    places = np.arange(batches * batch_size).reshape(batches, batch_size)[:, rows]
    valid = places < chosen.size
    picked = chosen[np.minimum(places, chosen.size - 1)]
    iterator = iter(
        grain.MapDataset.range(batches)
        .map(lambda batch: (source.batch(picked[batch]), valid[batch]))
        .to_iter_dataset(read_options(threads, prefetch))
    )
    try:
        yield from iterator
    finally:
        iterator.close()


def process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Returns which rows of a global batch are a process's; refuses sizes that do not fit."""
    if process_count < 1 or not 0 <= process_index < process_count:
        raise InputError(f"process {process_index} of {process_count}: expected an index below the count")
    if batch_size < 1 or batch_size % process_count:
        raise InputError(f"batch_size={batch_size}: expected a positive multiple of the {process_count} processes")
    size = batch_size // process_count
    return slice(process_index * size, (process_index + 1) * size)


def read_options(threads: int, prefetch: int) -> grain.ReadOptions:
    """Returns how Grain reads ahead; refuses counts that make no sense."""
    if threads < 0 or prefetch < 1:
        raise InputError(f"threads={threads}, prefetch={prefetch}: expected at least 0 and at least 1")
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
