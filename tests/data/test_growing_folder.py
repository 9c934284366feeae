"""A folder that is filled bit by bit: seen whole or not at all, gone on with under the same settings only."""

import os

import pytest

from asccl_jax.data.growing_folder import file_facts, growing_folder, is_made, making


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
    assert sorted(file.name for file in tmp_path.iterdir()) == [".faces.made", "faces"]


def test_other_settings_begin_with_an_empty_folder_and_replace_a_finished_one(tmp_path):
    path = tmp_path / "faces"
    fill(path, {"clip": 1}, name="old")
    with pytest.raises(KeyboardInterrupt):
        fill(path, {"clip": 1}, fails=True, name="a")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert fill(path, {"clip": 2}) == []
    assert [file.name for file in path.iterdir()] == ["b"]


def test_a_result_is_made_with_these_settings_and_no_others(tmp_path):
    path = tmp_path / "faces"
    assert not is_made(path, {"clip": 1})
    fill(path, {"clip": 1, "weights": [2, 3]})
    assert is_made(path, {"weights": [2, 3], "clip": 1}) and not is_made(path, {"clip": 1})
    fill(path, {"clip": 2})
    assert is_made(path, {"clip": 2}) and not is_made(path, {"clip": 1, "weights": [2, 3]})
    path.rename(tmp_path / "other")
    assert not is_made(path, {"clip": 2}) and not is_made(tmp_path / "other", {"clip": 2})


def test_a_result_whose_making_was_interrupted_is_not_made(tmp_path):
    path = tmp_path / "codes.npz"
    with making(path, {"clip": 1}):
        path.write_text("one")
    assert is_made(path, {"clip": 1})
    with pytest.raises(KeyboardInterrupt), making(path, {"clip": 2}):
        path.write_text("two")
        raise KeyboardInterrupt
    assert not is_made(path, {"clip": 1}) and not is_made(path, {"clip": 2})


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "deep" / "er" / "a").write_text("longer"),
        lambda folder: os.utime(folder / "deep" / "er" / "a", ns=(1, 1)),
        lambda folder: (folder / "b").write_text(""),
        lambda folder: (folder / "deep" / "er" / "a").rename(folder / "deep" / "a"),
        lambda folder: (folder / "deep" / "er" / "a").unlink(),
    ],
)
def test_facts_of_a_folder_are_of_all_that_lies_in_it_however_deep(tmp_path, change):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").write_text("short")
    before = file_facts(tmp_path, None)
    assert file_facts(tmp_path, None) == before
    change(tmp_path)
    assert file_facts(tmp_path, None) != before
