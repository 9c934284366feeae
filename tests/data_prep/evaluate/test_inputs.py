"""Clips are read off lists, trees of folders and single videos; what cannot be used is named."""

import pytest

from asccl_jax.errors import InputError
from data_prep.evaluate.inputs import read_clips
from tests.data_prep.evaluate.tiny_clips import write_list


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def ids(clips):
    return [one.clip.clip_id for one in clips.clips]


def test_a_tree_names_emotion_speaker_and_clip(tmp_path):
    touch(tmp_path, "happy/Ann/001.mp4", "sad/Ann/001.mp4", "sad/Ann/notes.txt", "happy/Bob/x/001.mp4")
    assert ids(read_clips(tmp_path, "--fake")) == ["Ann/happy/001", "Ann/sad/001", "Bob/happy/x-001"]


def test_folders_of_frames_are_clips_with_or_without_a_folder_of_their_own(tmp_path):
    touch(tmp_path, "gen/happy/Ann/000001.png", "gen/sad/Ann/002/000001.png", "gen/sad/Ann/002.wav")
    clips = read_clips(tmp_path / "gen", "--fake")
    assert ids(clips) == ["Ann/happy/clip", "Ann/sad/002"]
    assert clips.clips[1].clip.audio == tmp_path / "gen/sad/Ann/002.wav"


def test_a_video_may_be_named_after_its_emotion(tmp_path):
    touch(tmp_path, "happy.mp4", "talk_sad.mp4", "Bob/angry.mp4")
    assert ids(read_clips(tmp_path, "--fake")) == ["Bob/angry/clip", "person/happy/clip", "person/sad/talk"]


def test_a_single_video_is_neutral_where_that_is_the_default(tmp_path):
    touch(tmp_path, "talk.mp4")
    clips = read_clips(tmp_path / "talk.mp4", "--source", default_emotion="neutral")
    assert clips.single
    assert ids(clips) == ["person/neutral/talk"]


def test_paths_without_or_with_several_emotions_are_named(tmp_path):
    touch(tmp_path, "happy/Ann/001.mp4", "Ann/002.mp4", "happy/Ann/sad.mp4")
    problems = {
        problem.subject.rsplit("/", 1)[-1]: problem.reason for problem in read_clips(tmp_path, "--fake").problems
    }
    assert set(problems) == {"002.mp4", "sad.mp4"}
    assert "no emotion in its path" in problems["002.mp4"]
    assert "several emotions" in problems["sad.mp4"]


def test_a_list_carries_source_driver_and_truth(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_list(tmp_path, ("a.mp4", "Ann", "joy", "s1", "Ann/neutral/s1", "Bob", ""), ("b.mp4", "Ann", "bored", "s1"))
    clips = read_clips(tmp_path, "--fake")
    (given,) = clips.clips
    assert (given.clip.clip_id, given.source, given.driver) == ("Ann/happy/s1", "Ann/neutral/s1", "Bob")
    assert "emotion 'bored' is not one of" in clips.problems[0].reason


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_nothing_to_read_says_what_is_expected(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--fake .*EMOTION/SPEAKER/CLIP\.mp4"):
        read_clips(tmp_path / name, "--fake")
