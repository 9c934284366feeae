"""A head in FLAME's files: what is read is what was written, and what is wrong is told, all of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from data_prep.head_fit import flame_files
from data_prep.head_fit.flame_files import read_flame_files, write_flame_files
from data_prep.head_fit.safe_pickle import load_object_npy, load_pickle
from tests.data_prep.head_fit.tiny_head import TINY_FACES, TINY_VERTICES, tiny_fields, write_tiny_head


def test_fields_are_read_as_they_were_written(tmp_path: Path) -> None:
    read = read_flame_files(write_tiny_head(tmp_path / "head"))
    written = tiny_fields()
    assert set(read) == set(written)
    for name, value in written.items():
        if isinstance(value, np.ndarray):
            assert read[name].dtype == value.dtype, name
            np.testing.assert_array_equal(read[name], value, err_msg=name)
        else:
            assert read[name] == value, name


def test_files_that_are_there_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / flame_files.HEAD_TEMPLATE).write_text("licensed")
    with pytest.raises(InputError, match=r"already has head_template\.obj"):
        write_flame_files(tmp_path, tiny_fields())
    assert [path.name for path in tmp_path.iterdir()] == [flame_files.HEAD_TEMPLATE]
    assert (tmp_path / flame_files.HEAD_TEMPLATE).read_text() == "licensed"


def test_flames_own_habits_are_understood(tmp_path: Path) -> None:
    """Float64, unsigned parents, dense joints, torch tensors in the embedding, no key of ours."""
    directory = write_tiny_head(tmp_path / "head")
    _change_model(directory, lambda model: (model.pop("source"), model.pop("mouth_faces")))
    _change_model(directory, lambda model: model.update(J_regressor=model["J_regressor"].toarray().astype(np.float64)))
    _change_model(
        directory, lambda model: model.update(shapedirs=model["shapedirs"].astype(np.float64), bs_type="lrotmin")
    )
    path = directory / flame_files.LANDMARK_EMBEDDING
    embedding = load_object_npy(path)
    for name in ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"):
        embedding[name] = torch.from_numpy(embedding[name])
    np.save(path, np.array(embedding, object), allow_pickle=True)
    read, written = read_flame_files(directory), tiny_fields()
    assert read["source"] == "flame"
    assert read["mouth_faces"].shape == (0,)
    assert read["parents"].tolist() == [-1, 0, 1, 1, 1]
    for name in ("joint_regressor", "shapedirs", "dynamic_landmark_faces", "dynamic_landmark_weights"):
        np.testing.assert_array_equal(read[name], written[name], err_msg=name)
        assert read[name].dtype == written[name].dtype, name


def test_mask_may_be_coloured_with_transparency(tmp_path: Path) -> None:
    directory = write_tiny_head(tmp_path / "head")
    red = np.random.default_rng(1).integers(0, 256, (256, 256), np.uint8)
    others = np.zeros_like(red)
    cv2.imwrite(str(directory / flame_files.UV_FACE_EYE_MASK), np.stack([others, others, red, others], -1))
    np.testing.assert_array_equal(read_flame_files(directory)["uv_face_eye_mask"], (red / 255).astype(np.float32))


def test_everything_that_is_missing_is_listed_at_once(tmp_path: Path) -> None:
    directory = write_tiny_head(tmp_path / "head")
    (directory / flame_files.HEAD_TEMPLATE).unlink()
    (directory / flame_files.UV_FACE_EYE_MASK).unlink()

    def spoil(model: dict[str, Any]) -> None:
        del model["weights"], model["f"]
        model["posedirs"] = model["posedirs"][:, :, :30]
        model["v_template"][0, 0] = np.nan

    _change_model(directory, spoil)
    with pytest.raises(InputError) as caught:
        read_flame_files(directory)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "head_template.obj: no such file",
        "uv_face_eye_mask.png: no such file",
        "lacks f, weights",
        f"posedirs is {TINY_VERTICES} x 3 x 30, expected {TINY_VERTICES} x 3 x 36",
        "v_template holds values that are not finite",
        "asccl head check",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: model.update(shapedirs=model["shapedirs"][:-1]), "shapedirs is 11 x 3 x 400, expected 12 x 3"),
        (lambda model: model.update(J_regressor=model["J_regressor"][:4]), "J_regressor is 4 x 12, expected 5 x 12"),
        (lambda model: model.update(f=model["f"] + 5), "f points outside the 12"),
        (lambda model: model.update(weights=2 * model["weights"]), "do not add up to 1"),
        (lambda model: model["kintree_table"].fill(0), r"parents are \[0, 0, 0, 0, 0\], expected \[-1, 0, 1, 1, 1\]"),
        (lambda model: model.update(v_template="head"), "v_template is a single value, expected n x 3"),
        (lambda model: model.update(mouth_faces=np.array([99])), "mouth_faces points outside the 10"),
    ],
)
def test_model_of_wrong_content_is_told(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    directory = write_tiny_head(tmp_path / "head")
    _change_model(directory, change)
    with pytest.raises(InputError, match=words):
        read_flame_files(directory)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (flame_files.MODEL, pickle.dumps([1, 2]), "holds a list, expected the dictionary of a FLAME model"),
        (flame_files.LANDMARK_EMBEDDING, b"no numbers", "landmark_embedding.npy: damaged or not a NumPy file"),
        (flame_files.HEAD_TEMPLATE, b"v 0 0 0\nv 1 0\n", "line 2, 'v 1 0', is not as expected"),
        (flame_files.HEAD_TEMPLATE, b"v 0 0 0\nvt 0 0\nf 1/1 1/1 1/1 1/1\n", "line 3"),
        (flame_files.HEAD_TEMPLATE, b"v 0 0 0\nvt 0 0\nf 1 1 1\n", "line 3"),
        (flame_files.HEAD_TEMPLATE, b"v 0 0 0\nvt 0 0\nf 1/1 2/1 1/1\n", "point outside its 1 vertices"),
        (flame_files.HEAD_TEMPLATE, b"v 0 0 0\nvt 0 0\nf 1/1 1/1 1/1\n", "is of another head"),
        (flame_files.HEAD_TEMPLATE, b"<html>", "no triangles"),
        (flame_files.UV_FACE_EYE_MASK, b"<html>", "not a picture"),
        (
            flame_files.UV_FACE_EYE_MASK,
            cv2.imencode(".png", np.zeros((64, 32), np.uint8))[1].tobytes(),
            "32 x 64 uint8",
        ),
        (flame_files.ALBEDO, b"<html>", "damaged or not an .npz file"),
    ],
)
def test_unsound_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    directory = write_tiny_head(tmp_path / "head")
    (directory / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_flame_files(directory)
    assert name in str(caught.value)


def test_arrays_of_wrong_size_are_told(tmp_path: Path) -> None:
    directory = write_tiny_head(tmp_path / "head")
    np.save(directory / flame_files.FIXED_DISPLACEMENT, np.zeros((128, 256)))
    path = directory / flame_files.LANDMARK_EMBEDDING
    embedding = load_object_npy(path)
    embedding["full_lmk_faces_idx"] = np.full((1, 68), TINY_FACES)
    np.save(path, np.array(embedding, object), allow_pickle=True)
    np.savez(directory / flame_files.ALBEDO, MU=np.zeros(300), PC=np.zeros((300, 199)))
    with pytest.raises(InputError) as caught:
        read_flame_files(directory)
    message = str(caught.value)
    assert "fixed_displacement_256.npy: the array is 128 x 256, expected 256 x 256" in message
    assert f"full_lmk_faces_idx point outside the {TINY_FACES} triangles of generic_model.pkl" in message
    assert "MU is 300 float64, expected 786432 numbers per component" in message


def test_absent_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_flame_files(tmp_path / "nowhere")


def _change_model(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / flame_files.MODEL
    model = load_pickle(path)
    change(model)
    path.write_bytes(pickle.dumps(model))
