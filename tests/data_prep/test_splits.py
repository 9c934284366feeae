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


def held_out(*arguments, **options):
    return sorted(
        name[: name.index("/")] for name, split in assign_splits(*arguments, **options).items() if split != "train"
    )


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (9, 1), (20, 2), (39, 3)])
def test_the_last_tenth_of_the_speakers_is_held_out(count, expected):
    names = [f"S{number:02d}" for number in range(count)]
    assert held_out(clips(*names)) == names[count - expected :]


def test_mead_holds_out_the_published_speaker_where_it_is_there():
    assert held_out(clips("M003", "W021", "W040"), layout="mead") == ["W021"]
    assert held_out(clips("M003", "W022"), layout="mead") == ["W022"]
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
