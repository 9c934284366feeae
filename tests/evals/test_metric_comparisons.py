from pathlib import Path

import numpy as np
import pytest

from asccl_jax.data.manifest import Manifest, Shard, Split
from asccl_jax.errors import InputError
from asccl_jax.evals.metric_comparisons import default_split, derive_comparisons, lip_shape, load_comparisons
from tests.evals.toy_records import landmarks, write_records


def test_controlled_comparisons_are_preferred_and_limited_by_whole_groups(records: Path):
    everything = load_comparisons(records)
    assert everything.controlled and everything.split == "comparisons"
    assert len(everything.records) == 6 * 8
    some = load_comparisons(records, limit=2)
    assert {record.group for record in some.records} == {0, 5}
    assert len(some.records) == 2 * 8


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (("train", "validation", "test"), "test"),
        (("train", "validation"), "validation"),
        (("train", "validation", "test", "comparisons"), "comparisons"),
    ],
)
def test_what_is_reported_is_of_the_test_split_where_nothing_is_controlled(pairs, expected):
    splits = {name: Split(pairs=(Shard("pairs", 1, ""),)) for name in pairs}
    splits.setdefault("test", Split())
    assert default_split(Manifest("tiny", 8, splits, {})) == expected


def test_a_split_without_comparisons_derives_them(records: Path):
    derived = load_comparisons(records, split="validation", limit=5)
    assert not derived.controlled
    assert len({record.group for record in derived.records}) == 5


def test_derived_comparisons_are_the_same_every_time(records: Path):
    first, second = (derive_comparisons(records, split="validation", limit=7) for _ in range(2))
    assert [r.encode() for r in first.records] == [r.encode() for r in second.records]


def test_derived_mismatches_keep_query_and_clip_and_lie_far_away(records: Path):
    found = derive_comparisons(records, split="validation", limit=9)
    lookup = found.lookup
    for group, matched in lookup["matched"].items():
        aligned = found.records[matched]
        assert aligned.query_frame == aligned.key_frame
        distances = {}
        for condition in ("other_speech", "small_speech_change"):
            record = found.records[lookup[condition][group]]
            assert (record.query_clip, record.query_frame, record.key_clip) == (
                aligned.query_clip,
                aligned.query_frame,
                aligned.key_clip,
            )
            assert abs(record.key_frame - aligned.key_frame) >= 8
            distances[condition] = record.speech_distance
        assert distances["other_speech"] >= distances["small_speech_change"] >= 0


def test_clips_too_short_for_a_mismatch_have_matched_pairs_only(tmp_path: Path):
    short = write_records(tmp_path / "short", with_comparisons=False, frames=5)
    assert {record.condition for record in load_comparisons(short).records} == {"matched"}


def test_lip_shape_ignores_place_size_and_rotation():
    points = landmarks(4.0)
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    moved = 2.5 * points @ turn.T + np.array([7, -3], np.float32)
    # float32 landmarks.
    np.testing.assert_allclose(lip_shape(moved), lip_shape(points), atol=1e-5)
    assert np.abs(lip_shape(landmarks(8.0)) - lip_shape(points)).max() > 0.1


def test_missing_splits_and_pairs_are_named(records: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no split 'test'"):
        load_comparisons(records, split="test")
    without = write_records(tmp_path / "unpaired", with_pairs=False, with_comparisons=False)
    with pytest.raises(InputError, match="no aligned clip pairs"):
        load_comparisons(without)
