import collections
import itertools

import numpy as np
import pytest

from asccl_jax.data.loader import evaluation_batches
from asccl_jax.data.tracks import NO_LABEL
from asccl_jax.data.windows import CoefficientWindows, window_batches
from asccl_jax.errors import InputError
from tests.data.tiny_tracks import track

FIELDS = ("source", "source_emotion", "reference", "reference_emotion", "index", "reference_index")


@pytest.fixture(scope="module")
def source():
    tracks = [
        track(f"{speaker}/{emotion}/s", range(9), first=k * 100.0)
        for k, (speaker, emotion) in enumerate(itertools.product("abc", ("neutral", "happy", "sad")))
    ]
    return CoefficientWindows(tracks, window=5)  # 45 windows


def _frames(windows):
    """(clip, first frame) of each window, read off its numbers."""
    found = []
    for number in range(len(windows)):
        item = windows[number]["source"]
        np.testing.assert_allclose(item[:, 50] - item[:, 0], 0.5, atol=1e-4)  # columns are in order
        np.testing.assert_array_equal(np.diff(item[:, 0]), np.ones(windows.window - 1))
        found.append((windows.tracks[windows.track_numbers[number]].clip, int(item[0, 0])))
    return found


@pytest.mark.parametrize(("window", "hop"), [(4, 1), (3, 2), (1, 1), (10, 1)])
def test_windows_are_all_runs_of_consecutive_labelled_frames_and_no_others(window, hop):
    frames = {
        "a/sad/1": [0, 1, 2, 3, 4, 5, 9, 10, 11, 12],
        "a/sad/2": [2, 4, 6, 8],
        "b/happy/1": list(range(20)),
        "c/unlabelled/1": list(range(20)),
    }
    gap = [4] * 7 + [NO_LABEL] * 2 + [4] * 11
    tracks = [track(clip, numbers, gap if clip == "b/happy/1" else None) for clip, numbers in frames.items()]
    windows = CoefficientWindows(tracks, window=window, hop=hop)
    expected = []
    for clip, runs in {
        "a/sad/1": [(0, 6), (9, 13)],
        "a/sad/2": [(2, 3), (4, 5), (6, 7), (8, 9)],
        "b/happy/1": [(0, 7), (9, 20)],
    }.items():
        expected += [(clip, start) for low, high in runs for start in range(low, high - window + 1, hop)]
    assert _frames(windows) == expected
    assert len(windows) == len(expected)
    assert windows.unlabelled_clips == ["c/unlabelled/1"]
    assert windows.short_clips == [clip for clip in list(frames)[:3] if clip not in {name for name, _ in expected}]


def test_a_windows_emotion_is_the_most_frequent_label_and_the_first_on_ties():
    labels = [3, 3, 1, 1, 0, 5, 5, 5, 0, 0, 2]
    windows = CoefficientWindows([track("a/sad/1", range(11), labels)], window=4)
    expected = []
    for start in range(8):
        seen = labels[start : start + 4]
        expected.append(max(seen, key=seen.count))  # `max` gives the first of equals
    assert expected[0] == 3 and expected[1] == 1  # a tie, and a majority
    assert windows.emotions.tolist() == expected
    assert windows[0]["source_emotion"] == 3


def test_a_batch_holds_the_windows_its_indices_name(source):
    batch = source.batch([7, 0, 44], [3, 3, 9])
    assert batch.source.shape == (3, 5, 51) and batch.source.dtype == np.float32
    for kind, rows in (("source", [7, 0, 44]), ("reference", [3, 3, 9])):
        for row, index in enumerate(rows):
            np.testing.assert_array_equal(getattr(batch, kind)[row], source[index]["source"])
            assert getattr(batch, f"{kind}_emotion")[row] == source[index]["source_emotion"]
    assert batch.index.tolist() == [7, 0, 44] and batch.reference_index.tolist() == [3, 3, 9]
    with pytest.raises(IndexError, match="windows 0 to 45 of 45"):
        source.batch([0, 45])
    with pytest.raises(IndexError, match="window 45 of 45"):
        source[45]


def test_unnamed_references_are_a_permutation_that_stays_the_same(source):
    references = source.batch(range(45)).reference_index.tolist()
    assert sorted(references) == list(range(45)) and references != list(range(45))
    assert source.batch([5, 2]).reference_index.tolist() == [references[5], references[2]]


def test_splits_are_kept_apart_and_nothing_to_train_on_is_told():
    tracks = [track("a/sad/1", range(9)), track("b/sad/1", range(9), split="validation")]
    assert {t.speaker for t in CoefficientWindows(tracks, "validation", window=5).tracks} == {"b"}
    with pytest.raises(
        InputError, match="no window of 10 consecutive labelled frames in 1 clips of split 'train': 1 are"
    ):
        CoefficientWindows(tracks, "train")
    with pytest.raises(InputError, match="in 0 clips of split 'test'"):
        CoefficientWindows(tracks, "test")
    with pytest.raises(InputError, match="hop=0"):
        CoefficientWindows(tracks, hop=0)


def test_in_an_epoch_every_window_is_once_a_source_and_once_a_reference(source):
    batches = list(itertools.islice(window_batches(source, batch_size=9, seed=3), 10))
    epochs = []
    for kind in ("index", "reference_index"):
        seen = np.concatenate([getattr(batch, kind) for batch in batches]).reshape(2, 45)
        assert all(sorted(epoch) == list(range(45)) for epoch in seen.tolist())
        epochs += [tuple(epoch) for epoch in seen.tolist()]
    assert len(set(epochs)) == 4  # orders of sources and references have nothing in common
    for batch in batches:
        again = source.batch(batch.index, batch.reference_index)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(batch, name), getattr(again, name))


def test_pairs_of_source_and_reference_differ_from_epoch_to_epoch(source):
    batches = itertools.islice(window_batches(source, batch_size=15, seed=0), 12)
    pairs = [
        pair for batch in batches for pair in zip(batch.index.tolist(), batch.reference_index.tolist(), strict=True)
    ]
    # 180 draws of 2,025 pairs at random: 7.6 repeat one, 3 standard deviations are 8.
    repeated = sum(count - 1 for count in collections.Counter(pairs).values())
    assert repeated <= 16


@pytest.mark.parametrize("processes", [2, 4])
def test_parts_of_all_processes_make_up_the_global_batch_in_order(source, processes):
    whole = window_batches(source, batch_size=8, seed=1)
    parts = [
        window_batches(source, batch_size=8, seed=1, process_index=p, process_count=processes) for p in range(processes)
    ]
    for _ in range(7):
        batch, pieces = next(whole), [next(part) for part in parts]
        for name in FIELDS:
            joined = np.concatenate([getattr(piece, name) for piece in pieces])
            np.testing.assert_array_equal(joined, getattr(batch, name))
            assert {len(getattr(piece, name)) for piece in pieces} == {8 // processes}


@pytest.mark.parametrize("threads", [0, 2])
def test_a_resumed_iterator_goes_on_exactly_where_it_was(source, threads):
    iterator = window_batches(source, batch_size=8, seed=0, threads=threads)
    for _ in range(7):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(6)]
    fresh = window_batches(source, batch_size=8, seed=0, threads=threads)
    next(fresh)
    fresh.set_state(state)
    for batch in expected:
        found = next(fresh)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found, name), getattr(batch, name))
    iterator.close()
    fresh.close()


def test_sizes_that_do_not_fit_are_refused_at_once(source):
    with pytest.raises(InputError, match="expected a positive multiple of the 2 processes"):
        window_batches(source, batch_size=9, seed=0, process_count=2)
    with pytest.raises(InputError, match="threads=-1"):
        window_batches(source, batch_size=9, seed=0, threads=-1)


def test_evaluation_shows_every_window_once_with_its_own_reference(source):
    seen = []
    for batch, valid in evaluation_batches(source, batch_size=8, threads=0):
        assert len(batch.source) == 8
        np.testing.assert_array_equal(batch.reference_index, source.batch(batch.index).reference_index)
        seen += batch.index[valid].tolist()
    assert seen == list(range(45))
