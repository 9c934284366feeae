"""A folder appears whole or not at all; twins are clips of equal frames."""

import pytest

from asccl_jax.data.manifest import ClipEntry, Manifest
from asccl_jax.data.twins import find_twins
from asccl_jax.data.whole_folder import whole_folder


def test_a_folder_appears_with_all_of_its_files_and_replaces_the_old_one(tmp_path):
    for text in ("old", "new"):
        with whole_folder(tmp_path / "a" / "b") as folder:
            (folder / text).write_text(text)
            assert not (tmp_path / "a" / "b" / text).exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "new"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    with whole_folder(tmp_path / "b") as folder:
        (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "b") as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "old"]


def test_twins_share_speaker_sentence_split_and_frames():
    def entry(speaker, emotion, sentence, split="validation", frames=((0, 9),)):
        return ClipEntry(speaker, emotion, sentence, split, 30.0, "", 0, 0, frames)

    clips = {
        "A/neutral/1": entry("A", "neutral", "1"),
        "A/sad/1": entry("A", "sad", "1"),
        "A/angry/1": entry("A", "angry", "1"),
        "A/happy/1": entry("A", "happy", "1", frames=((0, 8),)),
        "A/fear/2": entry("A", "fear", "2"),
        "B/sad/1": entry("B", "sad", "1"),
        "A/neutral/3": entry("A", "neutral", "3", "train"),
        "A/sad/3": entry("A", "sad", "3", "train"),
    }
    manifest = Manifest("tiny", 224, {}, clips, {})
    found = [(twin.source, twin.target) for twin in find_twins(manifest)]
    assert found == [("A/neutral/1", "A/angry/1"), ("A/neutral/1", "A/sad/1")]
    assert [twin.target for twin in find_twins(manifest, "train")] == ["A/sad/3"]
