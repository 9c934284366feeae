"""Checkpoint files: read without trust, written whole or not at all."""

import importlib.util
import os
import pickle

import numpy as np
import pytest

from asccl_jax.errors import InputError
from DECA_torch_bridge.state_dict import read_state_dict, write_state_dict

torch = pytest.importorskip("torch")

ARRAYS = {
    "layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layer.num_batches_tracked": np.array(7, np.int64),
}


class Hostile:
    """Pickles into a call that leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def assert_holds_arrays(actual):
    assert list(actual) == list(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(actual[key], array, strict=True)


def test_written_arrays_read_back_bit_equal(tmp_path):
    write_state_dict(tmp_path / "a.pth", ARRAYS)
    assert_holds_arrays(read_state_dict(tmp_path / "a.pth"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_wrappers_and_old_formats_are_unwrapped(tmp_path, zipped, wrapper, prefix):
    content = {prefix + key: torch.from_numpy(array.copy()) for key, array in ARRAYS.items()}
    path = tmp_path / "a.pth.tar"
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, path, _use_new_zipfile_serialization=zipped)
    assert_holds_arrays(read_state_dict(path))


def test_half_precision_comes_back_as_float32(tmp_path):
    torch.save({"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.float16)}, tmp_path / "a.pth")
    arrays = read_state_dict(tmp_path / "a.pth")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        (pickle.dump, "damaged or not a PyTorch checkpoint: .*pickle protocol"),
        (lambda content, file: pickle.dump(content, file, 2), r"refused, nothing was run: it names \S+\.\w+, and only"),
        (lambda content, file: torch.save(content, file), r"refused, nothing was run: it names \S+\.\w+, and only"),
    ],
    ids=["raw", "old", "torch"],
)
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, writer, words):
    target = tmp_path / "made-by-the-pickle"
    with (tmp_path / "a.pth").open("wb") as file:
        writer({"a": Hostile(target)}, file)
    with pytest.raises(InputError, match=rf"a\.pth: {words}"):
        read_state_dict(tmp_path / "a.pth")
    assert not target.exists()


def test_a_truncated_file_is_refused(tmp_path):
    write_state_dict(tmp_path / "a.pth", {"a": np.ones(1000, np.float32)})
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:1500])
    with pytest.raises(InputError, match=r"b\.pth: damaged or not a PyTorch checkpoint: .+; get the file again"):
        read_state_dict(tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([1.0], "it holds a list"),
        ({}, "it is empty"),
        ({"a": torch.ones(1), "note": "text", "epoch": 3}, r"2 entries are no tensors \(note, epoch\)"),
        ({1: torch.ones(1)}, "some names are no strings"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, content, problem):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"a\.pth: not a PyTorch state dict: {problem}"):
        read_state_dict(tmp_path / "a.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.pth: no such file"):
        read_state_dict(tmp_path / "gone.pth")


def test_missing_pytorch_is_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "a.pth").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (lambda: read_state_dict(tmp_path / "a.pth"), lambda: write_state_dict(tmp_path / "b.pth", ARRAYS)):
        with pytest.raises(
            InputError, match=r"needs PyTorch, which is not installed: pip install 'asccl-jax\[bridge\]'"
        ):
            call()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_state_dict(tmp_path / "a.pth", ARRAYS)

    def fail(content, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_state_dict(tmp_path / "a.pth", {"other": np.ones(1, np.float32)})
    assert_holds_arrays(read_state_dict(tmp_path / "a.pth"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_writing_into_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist; make it first"):
        write_state_dict(tmp_path / "gone" / "a.pth", ARRAYS)
