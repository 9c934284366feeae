"""Who is held out."""

from pathlib import Path

import pytest

from asccl_jax.errors import InputError
from data_prep.clips import Clip
from data_prep.splits import assign_splits


def clips(*speakers, split=None):
    return [
        Clip(clip_id=f"{s}/sad/1", speaker=s, emotion="sad", sentence="1", name="1", video=Path("a"), split=split)
        for s in speakers
    ]


def of_split(wanted, *arguments, **options):
    return sorted(
        name[: name.index("/")] for name, split in assign_splits(*arguments, **options).items() if split == wanted
    )


def held_out(*arguments, **options):
    return of_split("validation", *arguments, **options)


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (9, 1), (20, 2), (39, 3)])
def test_the_last_tenth_of_the_speakers_is_held_out(count, expected):
    names = [f"S{number:02d}" for number in range(count)]
    assert held_out(clips(*names)) == names[count - expected :]


def test_mead_holds_out_the_published_speaker_where_it_is_there():
    assert held_out(clips("M005", "W021", "W040"), layout="mead") == ["W021"]
    assert held_out(clips("M005", "W022"), layout="mead") == ["W022"]
    assert held_out(clips("W021", "W022", "W023"), layout="list") == ["W023"]


def test_a_single_speaker_trains():
    assert held_out(clips("W021"), layout="mead") == []


def test_the_input_and_the_user_overrule_the_default():
    listed = [*clips("A", split="validation"), *clips("B", "C")]
    assert held_out(listed) == ["A"]
    assert held_out(listed, validation_speakers=("B", "C")) == ["B", "C"]


def test_unknown_speakers_and_none_left_are_refused():
    with pytest.raises(InputError, match="X: not among A, B"):
        assign_splits(clips("A", "B"), validation_speakers=("A", "X"))
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", "B"), validation_speakers=("A", "B"))


MEAD = [f"M{n:03d}" for n in (3, 5, 7, 9, 11, 12, 30, 31)] + [f"W{n:03d}" for n in (9, 15, 21, 29)]
RAVDESS = [f"Actor_{number:02d}" for number in range(1, 25)]


@pytest.mark.parametrize(
    ("layout", "speakers", "test", "validation"),
    [
        ("mead", MEAD, ["M003", "M009", "M012", "M030", "W015", "W029"], ["W021"]),
        ("ravdess", RAVDESS, RAVDESS[:6], RAVDESS[22:]),
        # Some of them, and somebody else.
        ("mead", ["M003", "M005", "M007"], ["M003"], ["M007"]),
        ("ravdess", ["Actor_01", "Actor_09"], ["Actor_01"], []),
        # Nobody else: somebody must train.
        ("mead", ["M003", "W029"], [], ["W029"]),
        ("mead", ["M003"], [], []),
        # The names mean nothing in data of other layouts.
        ("list", ["M003", "M005"], [], ["M005"]),
    ],
)
def test_speakers_whom_the_papers_report_on_are_in_neither_training_nor_validation(layout, speakers, test, validation):
    entries = clips(*speakers)
    assert of_split("test", entries, layout=layout) == test
    assert held_out(entries, layout=layout) == validation
    assert of_split("train", entries, layout=layout) == sorted({*speakers} - {*test} - {*validation})


def test_nothing_is_selected_by_a_test_speaker_unless_others_are_named():
    entries = clips(*MEAD)
    with pytest.raises(InputError, match=r"--validation-speakers M003, W015: test speakers.*--test-speakers"):
        assign_splits(entries, layout="mead", validation_speakers=("W015", "M003", "M005"))
    chosen = {"layout": "mead", "validation_speakers": ("M003",), "test_speakers": ("M005", "M007")}
    assert of_split("test", entries, **chosen) == ["M005", "M007"] and held_out(entries, **chosen) == ["M003"]
    nobody = {"layout": "mead", "validation_speakers": ("M003",), "test_speakers": ()}
    assert of_split("test", entries, **nobody) == [] and held_out(entries, **nobody) == ["M003"]
    with pytest.raises(InputError, match="--test-speakers X: not among"):
        assign_splits(entries, layout="mead", test_speakers=("X",))
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", "B"), test_speakers=("A", "B"))
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", "B"), test_speakers=("A",), validation_speakers=("B",))


def test_a_list_may_mark_clips_to_report_on():
    listed = [*clips("A", split="test"), *clips("B", "C")]
    assert of_split("test", listed) == ["A"] and held_out(listed) == ["C"]
    assert of_split("test", listed, validation_speakers=("B",)) == ["A"]
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", split="test"))
    assert of_split("train", listed, test_speakers=("B",)) == ["A"]
