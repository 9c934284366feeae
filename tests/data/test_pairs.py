import itertools
import pickle

import numpy as np
import pytest

from asccl_jax.data.pairs import FramePairs, within_holds
from asccl_jax.errors import InputError
from tests.data.tiny_dataset import SIZE, clip_pair, colour, write_tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pairs")
    write_tiny_dataset(directory)
    return directory


def _named(source, records):
    """(clip, frame) of record numbers, read from the records themselves."""
    frames = [source.frames[number] for number in records.tolist()]
    return [(frame.clip, frame.frame) for frame in frames]


def _entries(source):
    return list(zip(_named(source, source.query_records), _named(source, source.key_records), strict=True))


def _runs(frames):
    lengths = [1]
    for a, b in itertools.pairwise(frames):
        lengths = [*lengths[:-1], lengths[-1] + 1] if a == b else [*lengths, 1]
    return lengths


def test_entries_are_those_of_the_paths_in_order(dataset):
    source = FramePairs(dataset, "train")
    expected = [
        ((f"{speaker}/neutral/{sentence}", k), (f"{speaker}/happy/{sentence}", k))
        for speaker, sentence, length in (("A", "s1", 12), ("A", "s2", 10), ("B", "s1", 9), ("B", "s2", 6))
        for k in range(length)
    ]
    assert _entries(source) == expected
    assert source.pair_starts.tolist() == [0, 12, 22, 31, 37]
    assert len(source) == 37


def test_entries_with_a_dropped_frame_are_left_out(dataset):
    source = FramePairs(dataset, "validation")
    assert [key[1] for _, key in _entries(source)] == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert [query[1] for query, _ in _entries(source)] == [0, 1, 2, 3, 4, 8, 9, 10, 11]


def test_one_pair_shows_its_two_frames(dataset):
    source = FramePairs(dataset, "train")
    pair = source[15]  # the fourth of the second clip pair
    assert pair["index"] == 15
    for name, clip in (("query_image", "A/neutral/s2"), ("key_image", "A/happy/s2")):
        assert pair[name].shape == (SIZE, SIZE, 3)
        assert pair[name].dtype == np.uint8
        # Flat colours survive JPEG within two levels.
        np.testing.assert_allclose(pair[name].astype(int)[0, 0], colour(clip, 3), atol=2)


def test_a_batch_is_its_pairs_stacked(dataset):
    source = FramePairs(dataset, "train")
    batch = source.batch([36, 0, 15])
    assert batch.index.tolist() == [36, 0, 15]
    for row, index in enumerate(batch.index.tolist()):
        np.testing.assert_array_equal(batch.query_image[row], source[index]["query_image"])
        np.testing.assert_array_equal(batch.key_image[row], source[index]["key_image"])
    for outside in ([37], [-1]):
        with pytest.raises(IndexError):
            source.batch(outside)
    with pytest.raises(IndexError):
        source[37]


def test_a_pickled_source_reads_the_same(dataset):
    source = FramePairs(dataset, "train")
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[5]["key_image"], source[5]["key_image"])


def _random_path(random, length):
    steps = np.asarray([(1, 1), (0, 1), (1, 0)])[random.choice(3, p=[0.3, 0.4, 0.3], size=length)]
    return np.cumsum(np.concatenate([[[0, 0]], steps]), axis=0)


@pytest.mark.parametrize("max_hold", [1, 2, 3, 5])
def test_held_entries_kept_are_the_middle_ones(max_hold):
    random = np.random.default_rng(max_hold)
    for _ in range(30):
        frames = _random_path(random, 60)[:, 0]
        expected = []
        for frame in sorted(set(frames.tolist())):
            places = np.flatnonzero(frames == frame)
            spare = max(len(places) - max_hold, 0)
            expected += places[spare // 2 : len(places) - (spare - spare // 2)].tolist()
        assert np.flatnonzero(within_holds(frames, max_hold)).tolist() == expected


def test_no_frame_is_held_longer_than_asked(tmp_path):
    random = np.random.default_rng(0)
    path = _random_path(random, 70)
    last = path[-1]
    clips = {"A/neutral/s1": range(last[0] + 1), "A/happy/s1": range(last[1] + 1)}
    pair = clip_pair("A/neutral/s1", "A/happy/s1", path.tolist())
    write_tiny_dataset(tmp_path, shards={"train": [clips]}, pairs={"train": [pair]})
    assert _entries(FramePairs(tmp_path, "train", max_hold=None)) == [
        (("A/neutral/s1", query), ("A/happy/s1", key)) for query, key in path.tolist()
    ]
    for max_hold in (1, 2):
        source = FramePairs(tmp_path, "train", max_hold=max_hold)
        sides = list(zip(*_entries(source), strict=True))
        assert max(max(_runs(side)) for side in sides) == max_hold
        assert set(_entries(source)) < set(_entries(FramePairs(tmp_path, "train", max_hold=None)))


def test_mispaired_keys_are_other_speech_of_the_same_speaker_in_an_emotion(dataset):
    aligned, mispaired = FramePairs(dataset, "train"), FramePairs(dataset, "train", pairing="mispaired")
    assert [query for query, _ in _entries(mispaired)] == [query for query, _ in _entries(aligned)]
    for (query_clip, _), (key_clip, _) in _entries(mispaired):
        query, key = query_clip.split("/"), key_clip.split("/")
        assert key[0] == query[0]
        assert key[1] != "neutral"
        assert key[2] != query[2]
    keys = [key for _, key in _entries(mispaired)]
    assert len(set(keys)) > 18  # drawn from 48 frames, not one over and over


def test_mispaired_keys_are_the_same_at_each_visit_and_differ_by_seed(dataset):
    first, again, other = (FramePairs(dataset, "train", pairing="mispaired", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.key_records, again.key_records)
    assert np.mean(first.key_records != other.key_records) > 0.5


def test_a_speaker_of_one_sentence_is_mispaired_with_another_moment(tmp_path):
    clips = {"A/neutral/s1": range(26), "A/happy/s1": range(26), "A/sad/s1": range(22), "B/happy/s2": range(9)}
    pairs = [clip_pair("A/neutral/s1", "A/happy/s1", [(k, max(k - 2, 0)) for k in range(26)])]
    write_tiny_dataset(tmp_path, shards={"train": [clips]}, pairs={"train": pairs})
    source = FramePairs(tmp_path, "train", pairing="mispaired")
    aligned = FramePairs(tmp_path, "train")
    for ((_, query), (clip, key)), (_, (_, moment)) in zip(_entries(source), _entries(aligned), strict=True):
        assert clip in ("A/happy/s1", "A/sad/s1")
        assert abs(key - query) >= 10
        assert abs(key - moment) >= 10


def test_nothing_to_mispair_with_is_an_input_error(tmp_path):
    clips = {"A/neutral/s1": range(12), "A/happy/s1": range(12)}
    pair = clip_pair("A/neutral/s1", "A/happy/s1", [(k, k) for k in range(12)])
    write_tiny_dataset(tmp_path, shards={"train": [clips]}, pairs={"train": [pair]})
    with pytest.raises(InputError, match="speaker 'A' says one sentence, and no frame is 10 frames away from frame 2"):
        FramePairs(tmp_path, "train", pairing="mispaired")


@pytest.mark.parametrize(
    ("pairs", "message"), [([], "no aligned clip pairs"), ([[(9, 9)]], "1 aligned clip pairs, none with frames")]
)
def test_zero_pairs_are_an_input_error(tmp_path, pairs, message):
    clips = {"A/neutral/s1": range(3), "A/happy/s1": range(3)}
    written = [clip_pair("A/neutral/s1", "A/happy/s1", path) for path in pairs]
    write_tiny_dataset(tmp_path, shards={"train": [clips]}, pairs={"train": written})
    with pytest.raises(InputError, match=rf"split 'train' of {tmp_path} has {message}"):
        FramePairs(tmp_path, "train")


def test_bad_settings_are_named(dataset):
    with pytest.raises(InputError, match="max_hold=0"):
        FramePairs(dataset, "train", max_hold=0)
    with pytest.raises(InputError, match="no split 'test'"):
        FramePairs(dataset, "test")
