"""However many processes share the batches, and however often their number changes in the course of an epoch, an epoch
has every example once."""

import collections
import functools

import numpy as np
import pytest

from asccl_jax.data.loader import training_batches
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.sequences import Lengths, RenderSequences, sequence_batches, training_stages
from asccl_jax.data.windows import CoefficientWindows, window_batches
from tests.data.painted_clips import PaintedClips
from tests.data.tiny_dataset import write_tiny_dataset
from tests.data.tiny_tracks import track

BATCH = 12
"""Rows of a global batch: 1, 2, 3, 4, 6 and 12 processes can share it."""

FIXED_LENGTH = Lengths(start=4, most=4)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("elastic")
    write_tiny_dataset(directory)
    return functools.partial(training_batches, FramePairs(directory, "train")), 37


@pytest.fixture(scope="module")
def windows():
    tracks = [track(f"{speaker}/happy/s", range(9), first=k * 100.0) for k, speaker in enumerate("abcdefg")]
    source = CoefficientWindows(tracks, window=5)
    return functools.partial(window_batches, source), len(source)


@pytest.fixture(scope="module")
def sequences():
    source = RenderSequences(PaintedClips({f"clip{k}": list(range(8)) for k in range(31)}), length=4)
    return functools.partial(sequence_batches, source, lengths=FIXED_LENGTH, noise="none"), len(source)


@pytest.fixture(scope="module", params=["pairs", "windows", "sequences"])
def loader(request):
    """Makes iterators of one kind of example, and how many examples there are."""
    return request.getfixturevalue(request.param)


def history(make, counts, *, threads=0):
    """What each process draws where their number changes after every batch: one list of parts for each batch.

    Every time all processes end and others go on from what a single one of them has saved, as after a preemption.
    """
    drawn, state = [], None
    for number, count in enumerate(counts):
        parts, states = [], []
        for process in range(count):
            iterator = make(batch_size=BATCH, seed=3, threads=threads, process_index=process, process_count=count)
            if state is not None:
                iterator.set_state(state)
            parts.append(next(iterator))
            states.append(iterator.get_state())
            iterator.close()
        assert all(saved == states[0] for saved in states)
        state = states[number % count]
        drawn.append(parts)
    return drawn


def joined(drawn, name="index"):
    """All examples in the order of the rows of the global batches."""
    return np.concatenate([getattr(part, name) for parts in drawn for part in parts])


def some_counts(batches, seed):
    return np.random.default_rng(seed).choice([1, 2, 3, 4, 6, 12], batches).tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_every_example_comes_once_an_epoch_whatever_processes_come_and_go(loader, seed):
    make, examples = loader
    drawn = history(make, some_counts(-(-2 * examples // BATCH), seed), threads=seed)
    seen = joined(drawn)
    for epoch in range(2):
        # A batch may end one epoch and begin the next, so that only the order of rows tells where an epoch ends.
        assert sorted(seen[epoch * examples : (epoch + 1) * examples].tolist()) == list(range(examples))


def test_processes_share_a_batch_without_overlap(loader):
    make, examples = loader
    assert examples > 2 * BATCH  # so that the first two batches are of one epoch
    for count in (2, 3, 4, 6, 12):
        for parts in history(make, [count, count]):
            shown = collections.Counter(joined([parts]).tolist())
            assert set(shown.values()) == {1}
            assert [len(part.index) for part in parts] == [BATCH // count] * count


def test_all_of_a_batch_is_that_of_a_run_whose_processes_never_changed(loader):
    make, examples = loader
    batches = -(-2 * examples // BATCH)
    steady, changing = history(make, [1] * batches), history(make, some_counts(batches, 2))
    for name in steady[0][0].__dataclass_fields__:
        np.testing.assert_array_equal(joined(changing, name), joined(steady, name))


def test_every_window_lends_its_style_once_an_epoch_too(windows):
    make, examples = windows
    seen = joined(history(make, some_counts(-(-2 * examples // BATCH), 4)), "reference_index")
    for epoch in range(2):
        assert sorted(seen[epoch * examples : (epoch + 1) * examples].tolist()) == list(range(examples))


def test_growing_sequences_keep_their_items_and_epochs_though_processes_change_between_chunks():
    source = RenderSequences(PaintedClips({f"clip{k}": list(range(14)) for k in range(24)}), length=4)
    lengths = Lengths(start=4, most=8, epochs=2)
    first, last = training_stages(source, lengths, batch_size=BATCH)
    make = functools.partial(sequence_batches, source, lengths=lengths, noise="none")
    assert (first.chunks, last.chunks) == (1, 2)
    drawn = history(make, some_counts(last.first + 2 * last.chunks * len(source) // BATCH, 5))
    batches = [joined([parts]) for parts in drawn]
    of_last = batches[last.first :]
    for begun, ended in zip(of_last[::2], of_last[1::2], strict=True):
        np.testing.assert_array_equal(begun, ended)
    for stage in (batches[: last.first], batches[last.first :: last.chunks]):
        seen = np.concatenate(stage).tolist()
        assert len(seen) == 2 * len(source)
        assert sorted(seen[: len(source)]) == sorted(seen[len(source) :]) == list(range(len(source)))
