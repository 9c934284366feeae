"""The maps of the published tables: who drives whom, what clips they ask for, what is missing or foreign."""

import pytest

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError
from data_prep.evaluate.video_references import (
    CROSS_DRIVERS,
    MEAD_SPEAKERS,
    DrivenClip,
    SourceClip,
    check_map,
    driver_of,
    map_pairs,
)


def test_every_speaker_drives_one_other_of_the_same_data_set():
    ravdess = {f"Actor_0{number}" for number in range(1, 7)}
    for speakers in (set(MEAD_SPEAKERS), ravdess):
        assert {CROSS_DRIVERS[one] for one in speakers} == speakers
        assert all(CROSS_DRIVERS[one] != one for one in speakers)
    assert [driver_of(one, "cross") for one in ("M030", "Actor_01", "Actor_06")] == ["M012", "Actor_06", "Actor_05"]


SOURCES = [SourceClip("a", "M003", "neutral"), SourceClip("b", "M003", "happy"), SourceClip("c", "Ann", "neutral")]


def test_cross_takes_neutral_clips_of_mapped_speakers_in_all_emotions():
    pairs = map_pairs(SOURCES, "cross")
    assert [(pair.source, pair.driver, pair.emotion) for pair in pairs] == [("a", "W015", one) for one in EMOTIONS]


def test_intra_takes_every_clip_in_its_own_emotion():
    assert [(pair.source, pair.driver, pair.emotion) for pair in map_pairs(SOURCES, "intra")] == [
        ("a", "M003", "neutral"),
        ("b", "M003", "happy"),
        ("c", "Ann", "neutral"),
    ]


def test_a_check_names_what_is_missing_and_what_is_foreign():
    pairs = map_pairs(SOURCES[:1], "cross")
    clips = [DrivenClip(f"a/{emotion}", "M003", emotion, "a", "") for emotion in EMOTIONS[1:]]
    clips[0] = clips[0]._replace(driver="W015")
    clips[1] = clips[1]._replace(driver="M009")
    clips.append(DrivenClip("x", "Ann", "sad", "c", ""))
    check = check_map(pairs, clips, "cross")
    assert (check.wanted, check.covered, check.unstated) == (7, 5, 4)
    assert {pair.emotion for pair in check.missing} == {"neutral", EMOTIONS[2]}
    assert dict(check.foreign) == {
        f"a/{EMOTIONS[2]}": "driven by M009, the map says W015",
        "x": "c as sad is not in the map",
    }
    assert not check.complete


def test_a_data_set_outside_the_map_is_an_error():
    with pytest.raises(InputError, match="no clip of --source belongs to the map"):
        map_pairs([SourceClip("c", "Ann", "neutral")], "cross")
