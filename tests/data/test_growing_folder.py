"""A folder that is filled bit by bit: seen whole or not at all, gone on with under the same settings only."""

import pytest

from asccl_jax.data.growing_folder import growing_folder


def fill(path, settings, *, fails=False, name="b"):
    with growing_folder(path, settings) as folder:
        found = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
        (folder / name).write_text(name)
        if fails:
            raise KeyboardInterrupt
    return found


def test_what_was_interrupted_is_kept_for_the_same_settings_and_shown_when_whole(tmp_path):
    path = tmp_path / "faces"
    with pytest.raises(KeyboardInterrupt):
        fill(path, {"clip": 1}, fails=True, name="a")
    assert not path.exists()
    assert fill(path, {"clip": 1}) == ["a"]
    assert sorted(file.name for file in path.iterdir()) == ["a", "b"]
    assert [file.name for file in tmp_path.iterdir()] == ["faces"]


def test_other_settings_begin_with_an_empty_folder_and_replace_a_finished_one(tmp_path):
    path = tmp_path / "faces"
    fill(path, {"clip": 1}, name="old")
    with pytest.raises(KeyboardInterrupt):
        fill(path, {"clip": 1}, fails=True, name="a")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert fill(path, {"clip": 2}) == []
    assert [file.name for file in path.iterdir()] == ["b"]
