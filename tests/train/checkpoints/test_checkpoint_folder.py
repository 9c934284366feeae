"""What lies in a folder of checkpoints is told apart, whatever it is, and stays as it was."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from asccl_jax.errors import InputError
from asccl_jax.train.checkpoints.checkpoint import Checkpoints
from asccl_jax.train.checkpoints.checkpoint_folder import (
    ITEMS,
    list_entries,
    newest_on_disk,
    read_entry,
    reading,
    set_aside_name,
)
from asccl_jax.types import TrainState


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with one checkpoint, of step 3."""
    directory = tmp_path_factory.mktemp("whole")
    checkpoints = Checkpoints(directory, keep=2)
    notes = {"data": {"next_index": 3}, "config": {"seed": 1}, "progress": {"score": 0.5}}
    state = TrainState(jnp.asarray(3), {"w": jnp.zeros(2)}, {}, (), jax.random.key(0))
    checkpoints.save(3, state, **notes)
    checkpoints.close()
    return directory


@pytest.fixture
def directory(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoints")


def contents(directory):
    return {str(path.relative_to(directory)): path.stat().st_mtime_ns for path in directory.rglob("*")}


def kinds(directory):
    return {entry.path.name: entry.kind for entry in list_entries(directory)}


def test_everything_that_may_lie_there_is_told_apart_and_nothing_is_changed(directory):
    (directory / "4.orbax-checkpoint-tmp/state").mkdir(parents=True)
    shutil.copytree(directory / "3", directory / "5")
    (directory / "5/data/metadata").unlink()
    (directory / "6").mkdir()
    shutil.copytree(directory / "3", directory / "7.damaged")
    (directory / "8").write_text("")
    with ocp.StandardCheckpointer() as other:
        other.save(directory / "9", {"a": np.zeros(2)})
    (directory / "10/weights").mkdir(parents=True)
    (directory / "model.pt").write_text("")
    (directory / "0011").mkdir()
    before = contents(directory)
    assert kinds(directory) == {
        "3": "whole",
        "4.orbax-checkpoint-tmp": "partial",
        "5": "damaged",
        "6": "damaged",
        "7.damaged": "set aside",
        "8": "foreign",
        "9": "foreign",
        "10": "foreign",
        "model.pt": "foreign",
        "0011": "foreign",
    }
    assert contents(directory) == before
    assert newest_on_disk(directory) == 3


def test_a_file_that_somebody_put_beside_the_items_does_no_harm(directory):
    (directory / "3/notes.txt").write_text("the good one")
    assert kinds(directory) == {"3": "whole"}


@pytest.mark.parametrize("name", ITEMS)
def test_a_missing_item_is_named(directory, name):
    shutil.rmtree(directory / "3" / name)
    assert (read_entry(directory / "3").kind, read_entry(directory / "3").problem) == ("damaged", f"{name} missing")


@pytest.mark.parametrize("file", ["data/metadata", "config/metadata", "progress/metadata", "state/_METADATA"])
@pytest.mark.parametrize("content", ["", '{"seed": ', "[]", None])
def test_a_description_that_is_missing_or_cut_short_is_named(directory, file, content):
    path = directory / "3" / file
    path.unlink() if content is None else path.write_text(content)
    entry = read_entry(directory / "3")
    assert entry.kind == "damaged"
    assert entry.problem.startswith(file)


def test_a_file_that_may_not_be_read_is_no_damage(directory, monkeypatch):
    def denied(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(directory), "read_text", denied)
    with pytest.raises(InputError, match=r"metadata cannot be read \(Permission denied\)|_METADATA cannot be read"):
        list_entries(directory)


def test_what_is_whole_says_its_notes(directory):
    (entry,) = list_entries(directory)
    assert (entry.step, entry.notes.score, entry.notes.config) == (3, 0.5, {"seed": 1})
    assert json.dumps(entry.notes.data) == '{"next_index": 3}'


def test_a_damaged_checkpoint_gets_a_name_that_nothing_has(tmp_path):
    names = []
    for _ in range(3):
        names.append(set_aside_name(tmp_path / "7").name)
        (tmp_path / names[-1]).mkdir()
    assert names == ["7.damaged", "7.damaged.2", "7.damaged.3"]
    assert set(kinds(tmp_path).values()) == {"set aside"}


def test_what_the_system_refuses_is_told_from_what_is_not_there(tmp_path):
    refused = ValueError("PERMISSION_DENIED: Error opening [os_error_code='13'] [tensorstore_spec='{...}']")
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied") as error, reading(tmp_path):
        raise refused
    assert "\n" not in str(error.value)


def test_no_folder_is_no_checkpoint(tmp_path):
    assert list_entries(tmp_path / "nowhere") == []
    assert newest_on_disk(tmp_path / "nowhere") is None
