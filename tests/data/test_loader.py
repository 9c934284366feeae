import itertools
import shutil
import threading

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from asccl_jax.data.loader import evaluation_batches, training_batches
from asccl_jax.data.pairs import FramePairs
from asccl_jax.errors import InputError
from tests.data.tiny_dataset import write_tiny_dataset

PAIRS = 37  # of the tiny data set


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("loader")
    write_tiny_dataset(directory)
    return directory


@pytest.fixture(scope="module")
def source(directory):
    return FramePairs(directory, "train")


@pytest.fixture
def batches(source):
    """`training_batches` whose threads end with the test."""
    opened = []

    def make(**options):
        opened.append(training_batches(source, **{"batch_size": 4, "seed": 0, "threads": 2, **options}))
        return opened[-1]

    yield make
    for iterator in opened:
        iterator.close()


def _indices(iterator, count):
    return [batch.index.tolist() for batch in itertools.islice(iterator, count)]


def _equal(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("query_image", "key_image", "index")
    )


def test_an_epoch_shows_every_pair_once_in_an_order_of_its_own(batches):
    seen = np.concatenate(_indices(batches(batch_size=8), 14))  # three epochs of 37 pairs, batches span them
    epochs = [seen[k * PAIRS : (k + 1) * PAIRS].tolist() for k in range(3)]
    assert all(sorted(epoch) == list(range(PAIRS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert tuple(range(PAIRS)) not in {tuple(epoch) for epoch in epochs}


def test_order_follows_from_the_seed_and_neighbouring_seeds_share_no_epoch(batches):
    def epochs(seed):
        seen = np.concatenate(_indices(batches(batch_size=PAIRS, seed=seed), 3)).reshape(3, PAIRS)
        return {tuple(epoch) for epoch in seen.tolist()}

    assert epochs(5) == epochs(5)
    assert not epochs(5) & epochs(6)


def test_rows_of_a_batch_are_the_pairs_its_index_names(source, batches):
    batch = next(batches())
    assert batch.query_image.dtype == np.uint8
    for row, index in enumerate(batch.index.tolist()):
        np.testing.assert_array_equal(batch.query_image[row], source[index]["query_image"])
        np.testing.assert_array_equal(batch.key_image[row], source[index]["key_image"])


@pytest.mark.parametrize("processes", [2, 4])
def test_parts_of_all_processes_make_up_the_global_batch_in_order(batches, processes):
    whole = batches(batch_size=8)
    parts = [batches(batch_size=8, process_index=p, process_count=processes) for p in range(processes)]
    for _ in range(7):
        batch, pieces = next(whole), [next(part) for part in parts]
        for name in ("query_image", "key_image", "index"):
            joined = np.concatenate([getattr(piece, name) for piece in pieces])
            np.testing.assert_array_equal(joined, getattr(batch, name))
            assert {len(getattr(piece, name)) for piece in pieces} == {8 // processes}


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_change_nothing(batches, threads):
    reference, found = batches(threads=0), batches(threads=threads, prefetch=3)
    assert all(_equal(next(reference), next(found)) for _ in range(12))


@pytest.mark.parametrize("threads", [0, 4])
@pytest.mark.parametrize("step", [0, 1, 9, 13])
def test_a_resumed_iterator_goes_on_exactly_where_it_was(batches, step, threads):
    iterator = batches(threads=threads)
    for _ in range(step):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(6)]

    fresh = batches(threads=threads)
    next(fresh)  # a used iterator can be set as well as a new one
    fresh.set_state(state)
    assert all(_equal(next(fresh), batch) for batch in expected)


def test_state_fits_another_number_of_processes(batches):
    whole = batches(batch_size=8)
    for _ in range(5):
        next(whole)
    part = batches(batch_size=8, process_index=1, process_count=2)
    part.set_state(whole.get_state())
    assert next(part).index.tolist() == next(whole).index.tolist()[4:]


def test_orbax_saves_and_restores_the_iterator(batches, tmp_path):
    iterator = batches()
    for _ in range(3):
        next(iterator)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        manager.wait_until_finished()
        expected = _indices(iterator, 5)
        fresh = batches()
        manager.restore(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    assert _indices(fresh, 5) == expected


@pytest.mark.parametrize("batch_size", [1, PAIRS, 100])
def test_a_batch_may_be_larger_than_the_data_set(batches, batch_size):
    seen = np.concatenate(_indices(batches(batch_size=batch_size), -(-PAIRS // batch_size) + 1))
    assert sorted(seen[:PAIRS].tolist()) == list(range(PAIRS))


@pytest.mark.parametrize("threads", [0, 2])
def test_a_corrupt_record_stops_the_epoch_and_is_named(directory, tmp_path, threads):
    damaged = shutil.copytree(directory, tmp_path / "data")
    shard = damaged / "asccl_frames-train.tfrecord-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[300] ^= 1  # in the image of its first record: pair 22, B/neutral/s1
    shard.write_bytes(content)
    iterator = training_batches(FramePairs(damaged, "train"), batch_size=2, seed=0, threads=threads)
    seen = []
    with pytest.raises(InputError, match=f"{shard}: record 0 is corrupt"):
        for batch in itertools.islice(iterator, PAIRS):
            seen += batch.index.tolist()
    iterator.close()
    assert 22 not in seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 9, "process_count": 2}, "batch_size=9: expected a positive multiple of the 2 processes"),
        ({"process_index": 2, "process_count": 2}, "process 2 of 2"),
        ({"threads": -1}, "threads=-1"),
        ({"prefetch": 0}, "prefetch=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_at_once(batches, options, message):
    with pytest.raises(InputError, match=message):
        batches(**options)


def test_evaluation_shows_every_pair_once_in_order_and_pads_the_last_batch(source):
    seen, sizes = [], set()
    for batch, valid in evaluation_batches(source, batch_size=8, threads=2):
        seen += batch.index[valid].tolist()
        sizes.add(len(batch.index))
        padding = batch.index[~valid].tolist()
    assert seen == list(range(PAIRS))
    assert sizes == {8}
    assert padding == [PAIRS - 1] * 3


def test_evaluation_keeps_to_the_chosen_pairs_and_splits_over_processes(source):
    chosen = [5, 3, 30, 3, 17]
    parts = [
        list(evaluation_batches(source, batch_size=4, indices=chosen, process_index=p, process_count=2))
        for p in range(2)
    ]
    for number in range(2):
        (first, first_valid), (second, second_valid) = (part[number] for part in parts)
        index = np.concatenate([first.index, second.index])
        valid = np.concatenate([first_valid, second_valid])
        assert index[valid].tolist() == chosen[4 * number : 4 * number + 4]
    with pytest.raises(InputError, match="no examples to evaluate"):
        next(evaluation_batches(source, batch_size=4, indices=[]))


def test_an_evaluation_left_early_ends_its_threads(source):
    before = set(threading.enumerate())
    batches = evaluation_batches(source, batch_size=2, threads=3)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    batches.close()
    for thread in started:
        thread.join(timeout=60)  # seconds; a thread ends with the batch it is reading
    assert not any(thread.is_alive() for thread in started)
