"""Code dicts keep every frame and its index through files, and refuse what does not fit, by name."""

import dataclasses
import pickle

import numpy as np
import pytest

from asccl_jax.data.codes import CodeDict, join_codes
from asccl_jax.errors import InputError
from data_prep.head_fit.published_codes import read_published_codes, write_published_codes
from tests.data_prep.head_fit.golden_head import some_codes


def assert_equal(found: CodeDict, expected: CodeDict) -> None:
    for field in dataclasses.fields(CodeDict):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)


def test_file_gives_the_same_codes(tmp_path):
    some_codes().save(tmp_path / "a.npz")
    assert_equal(CodeDict.load(tmp_path / "a.npz"), some_codes())
    bare = dataclasses.replace(some_codes(), tex=None, light=None, detail=None, tform=None, original_size=None)
    bare.save(tmp_path / "b.npz")
    assert_equal(CodeDict.load(tmp_path / "b.npz"), bare)


def test_published_folder_gives_the_same_codes_under_frame_indices(tmp_path):
    write_published_codes(tmp_path, some_codes())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000000.pkl", "000002.pkl", "000004.pkl"]
    assert_equal(read_published_codes(tmp_path), some_codes())


def test_published_pickles_name_arrays_as_old_numpy_does(tmp_path):
    write_published_codes(tmp_path, some_codes())
    content = (tmp_path / "000002.pkl").read_bytes()
    assert b"numpy.core.multiarray" in content
    assert b"numpy._core" not in content


def test_slices_joined_are_the_whole():
    codes = some_codes(5)
    assert_equal(join_codes([codes[:2], codes[2:]]), codes)
    assert codes[[1, 3]].frame_index.tolist() == [2, 6]
    with pytest.raises(InputError, match="2 kinds of fields"):
        join_codes([codes, dataclasses.replace(codes, tex=None)])


def test_editing_replaces_expression_and_jaw_opening_alone():
    codes = some_codes()
    edited = codes.edited(np.ones((3, 50)), np.array([0.1, 0.2, 0.3]))
    assert (edited.exp == 1).all()
    np.testing.assert_allclose(edited.pose[:, 3], [0.1, 0.2, 0.3], rtol=1e-6)
    others = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(edited.pose[:, others], codes.pose[:, others])
    assert edited.shape is codes.shape
    assert codes.exp.std() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pose": np.zeros((3, 5), np.float32)}, r"pose has shape \(3, 5\), expected \(3, 6\)"),
        ({"exp": np.zeros((2, 50), np.float32)}, r"exp has shape \(2, 50\), expected \(3, any\)"),
        ({"frame_index": np.array([0, 2, 2])}, "frame_index does not ascend"),
        ({"cam": np.full((3, 3), np.nan, np.float32)}, "cam is not finite in frame 0 and 2 more"),
        ({"shape": np.zeros((3, 100), int)}, "shape has type int64"),
    ],
)
def test_fields_that_do_not_fit_are_named(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(some_codes(), **change)


def test_damaged_and_foreign_files_are_refused_in_clear_words(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        CodeDict.load(tmp_path / "none.npz")
    some_codes().save(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    with pytest.raises(InputError, match=r"cut\.npz: damaged"):
        CodeDict.load(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(InputError, match="format 'none', expected"):
        CodeDict.load(tmp_path / "other.npz")
    np.savez(tmp_path / "less.npz", format="asccl-codes-1", frame_index=np.arange(2), colour=np.zeros(2))
    with pytest.raises(
        InputError, match=r"missing fields \['shape', 'exp', 'pose', 'cam'\], unknown fields \['colour'\]"
    ):
        CodeDict.load(tmp_path / "less.npz")


def test_published_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="no code dicts"):
        read_published_codes(tmp_path / "none")
    write_published_codes(tmp_path, some_codes())
    (tmp_path / "000001.pkl").write_bytes(pickle.dumps({"shape": 1}))
    with pytest.raises(InputError, match=r"000001\.pkl: no DECA code dict, lacks exp, pose, cam"):
        read_published_codes(tmp_path)
    (tmp_path / "000001.pkl").unlink()
    (tmp_path / "last.pkl").write_bytes(b"")
    with pytest.raises(InputError, match=r"last\.pkl name no frame"):
        read_published_codes(tmp_path)
