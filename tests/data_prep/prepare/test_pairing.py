"""Which clips are paired, and the list of pairs as a file."""

import json
from pathlib import Path

import numpy as np
import pytest

from asccl_jax.errors import InputError
from data_prep.media.clips import Clip
from data_prep.prepare.pairing import (
    ClipPair,
    adopt_sentences,
    export_pairs,
    import_pairs,
    match_sentences,
    name_disgusted_sentences,
    pair_record,
    standing_out,
    unpaired_spellings,
    within_splits,
)


def clip(speaker, emotion, name, sentence=None, take=""):
    clip_id = "/".join(filter(None, (speaker, emotion, name, take)))
    return Clip(
        clip_id=clip_id,
        speaker=speaker,
        emotion=emotion,
        sentence=sentence or name,
        name=name + (f"-{take}" if take else ""),
        video=Path("a.mp4"),
    )


def names(pairs):
    return [(pair.query.clip_id, pair.key.clip_id) for pair in pairs]


def test_neutral_meets_every_emotion_of_the_same_speaker_and_sentence():
    clips = [
        clip("A", "happy", "7", sentence="s1"),
        clip("A", "neutral", "1", sentence="s1"),
        clip("A", "neutral", "1", sentence="s1", take="b"),
        clip("A", "sad", "1", sentence="s1"),
        clip("A", "sad", "2", sentence="s2"),
        clip("B", "sad", "1", sentence="s1"),
    ]
    assert names(match_sentences(clips)) == [
        ("A/neutral/1", "A/happy/7"),
        ("A/neutral/1", "A/sad/1"),
        ("A/neutral/1/b", "A/happy/7"),
        ("A/neutral/1/b", "A/sad/1"),
    ]


def test_a_pair_across_splits_is_refused_by_name():
    pairs = match_sentences([clip("A", "neutral", "1"), clip("A", "sad", "1"), clip("A", "happy", "1")])
    splits = {"A/neutral/1": "train", "A/sad/1": "validation", "A/happy/1": "train"}
    kept, problems = within_splits(pairs, splits)
    assert names(kept) == [("A/neutral/1", "A/happy/1")]
    assert [(problem.subject, problem.reason) for problem in problems] == [
        ("A/neutral/1 ~ A/sad/1", "its clips lie in different splits")
    ]


def test_exported_pairs_come_back_as_they_were(tmp_path):
    clips = [
        clip("A", "neutral", "my_001"),
        clip("A", "sad", "my_001"),
        clip("B", "neutral", "2"),
        clip("B", "sad", "2"),
    ]
    pairs = [
        ClipPair(clips[0], clips[1], np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2]), cost=0.3),
        ClipPair(clips[2], clips[3], np.array([5]), np.array([7])),
    ]
    export_pairs(tmp_path / "new" / "pairs.json", pairs)
    read, problems = import_pairs(tmp_path / "new" / "pairs.json", clips)
    assert problems == []
    assert names(read) == names(pairs)
    for first, second in zip(pairs, read, strict=True):
        np.testing.assert_array_equal(first.query_frame, second.query_frame)
        np.testing.assert_array_equal(first.key_frame, second.key_frame)
    assert json.loads((tmp_path / "new" / "pairs.json").read_text())["B"] == {"sad": {"2_2": [[5], [7]]}}


def test_entries_that_fit_no_clip_or_go_back_are_named(tmp_path):
    table = {
        "A": {
            "sad": {"001_001": [[0, 1], [0, 0]], "001_009": [[0], [0]], "002_001": [[1, 0], [0, 1]]},
            "contempt": {"001_001": [[0], [0]]},
        },
        "Z": {"sad": {"001_001": [[0], [0]]}},
        "B": {"sad": {"001_001": [[0, 1], [0]]}},
    }
    (tmp_path / "pairs.json").write_text(json.dumps(table))
    clips = [clip(s, e, n) for s in "AB" for e in ("neutral", "sad") for n in ("001", "002")]
    pairs, problems = import_pairs(tmp_path / "pairs.json", clips)
    assert names(pairs) == [("A/neutral/001", "A/sad/001")]
    assert [(problem.subject.split(": ")[1], problem.reason.split(";")[0]) for problem in problems] == [
        ("A/sad/001_009", "no such clips among the usable ones"),
        ("A/sad/002_001", "frames must count from 0 and never fall"),
        (
            "A/contempt/001_001",
            "emotion 'contempt' is not one of neutral, angry, disgusted, fear, happy, sad, surprised",
        ),
        ("Z/sad/001_001", "no such clips among the usable ones"),
        ("B/sad/001_001", "expected two lists of frames of one length"),
    ]


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"A": {"sad": [1]}}', '{"A": {"sad": {"1_1": [["x"], [0]]}}}'])
def test_a_file_of_another_layout_is_refused(tmp_path, content):
    (tmp_path / "pairs.json").write_text(content)
    with pytest.raises(InputError, match="as a list of pairs"):
        import_pairs(tmp_path / "pairs.json", [])


def mead(emotion, *numbers):
    return [clip("M1", emotion, n, sentence=n if n <= "003" else f"{emotion}-{n}") for n in numbers]


def test_a_list_of_pairs_settles_what_its_clips_say():
    clips = [*mead("neutral", "001", "002"), *mead("disgusted", "001", "002", "028", "029")]
    by_id = {c.clip_id: c for c in clips}
    listed = [
        ClipPair(by_id["M1/neutral/001"], by_id["M1/disgusted/028"], np.array([0]), np.array([0])),
        ClipPair(by_id["M1/neutral/002"], by_id["M1/disgusted/028"], np.array([0]), np.array([0])),
    ]
    settled, pairs, problems = adopt_sentences(clips, listed)
    said = {c.clip_id: c.sentence for c in settled}
    assert said["M1/disgusted/028"] == "001"
    assert said["M1/disgusted/001"] == "disgusted-001"  # its number no longer tells
    assert said["M1/disgusted/002"] == "002"
    assert names(pairs) == [("M1/neutral/001", "M1/disgusted/028")]
    assert pairs[0].key.sentence == "001"
    assert [problem.subject for problem in problems] == ["M1/neutral/002 ~ M1/disgusted/028"]


@pytest.mark.parametrize("late", [True, False])
def test_disgusted_sentences_are_told_by_ear(late):
    numbers = ("001", "002", "003", "028", "029", "030")
    clips = [*mead("neutral", *numbers[:3]), *mead("disgusted", *numbers)]

    def cost(query, key):
        position = numbers.index(key.name)
        if position == 1:
            return None  # a clip that cannot be aligned says nothing
        return 0.3 if (position >= 3) == late else 0.7

    settled, remarks = name_disgusted_sentences(clips, cost)
    said = [c.sentence for c in settled if c.emotion == "disgusted"]
    first, last = ["001", "002", "003"], ["disgusted-028", "disgusted-029", "disgusted-030"]
    assert said == ([f"disgusted-{n}" for n in first] + first if late else first + last)
    assert [c.sentence for c in settled if c.emotion == "neutral"] == first
    assert len(remarks) == late


def test_a_record_leaves_out_entries_whose_frame_was_dropped():
    pair = ClipPair(
        clip("A", "neutral", "1"), clip("A", "sad", "1"), np.array([0, 1, 1, 2]), np.array([0, 1, 2, 3]), 0.2
    )
    record = pair_record(pair, {"A/neutral/1": np.array([0, 1]), "A/sad/1": np.array([0, 2, 3])})
    assert record.query_frame.tolist() == [0, 1]
    assert record.key_frame.tolist() == [0, 2]
    assert (record.cost, record.key_emotion, record.sentence) == (0.2, "sad", "1")
    assert pair_record(pair, {"A/neutral/1": np.array([7]), "A/sad/1": np.array([0])}) is None


def test_a_speaker_in_two_spellings_is_told(tmp_path):
    clips = [
        clip("anna", "neutral", "1"),
        clip("Anna", "sad", "1"),
        clip("Bob", "neutral", "1"),
        clip("Bob", "sad", "1"),
    ]
    (problem,) = unpaired_spellings(clips)
    assert problem.reason.startswith("anna/1 has no clip with an emotion, Anna/1 no neutral one")


@pytest.mark.parametrize(
    ("costs", "out"),
    [
        ([0.1081, 0.6029], [1]),  # the synthetic clips of two sentences under one number
        ([0.05, 0.06, 0.07, 0.11], []),  # all of one sentence each
        ([0.05] * 3 + [0.4, 0.84], [3, 4]),
        ([0.45, 0.5, 0.55, 0.62, 0.8], [4]),  # as far from each other as real sentences are
        ([0.6, 0.7, 0.65], []),
        ([0.9], []),
        ([], []),
    ],
)
def test_a_pair_stands_out_where_it_costs_much_more_than_the_others(costs, out):
    assert [place for place, usual in enumerate(standing_out(costs)) if usual is not None] == out
