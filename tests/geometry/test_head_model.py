"""A head's file holds all of it, and what does not fit together is refused with every reason."""

import dataclasses

import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.geometry.head_model import HeadModel, load_head_model, save_head_model
from tests.geometry.heads import golden_head


def test_a_saved_head_comes_back_equal(tmp_path):
    save_head_model(tmp_path / "head.npz", golden_head())
    loaded = load_head_model(tmp_path / "head.npz")
    for field in dataclasses.fields(HeadModel):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(golden_head(), field.name))
    assert (loaded.shape_size, loaded.expression_size, loaded.source) == (100, 50, "flame")
    assert [file.name for file in tmp_path.iterdir()] == ["head.npz"]


def test_all_fields_that_do_not_fit_are_named_at_once():
    head = golden_head()
    with pytest.raises(InputError, match=r"faces has type float32; identity_basis has shape \(10, 3, 100\).*216"):
        dataclasses.replace(head, faces=head.faces.astype(np.float32), identity_basis=head.identity_basis[:10])
    bad = head.v_template.copy()
    bad[3] = np.nan
    with pytest.raises(InputError, match="v_template is not finite"):
        dataclasses.replace(head, v_template=bad)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("faces", 216, r"faces holds 1..216, expected 0..215"),
        ("full_landmark_faces", -1, r"full_landmark_faces holds -1..\d+, expected 0..373"),
        ("parents", 3, r"parents are \[3, 0, 1, 1, 1\]"),
    ],
)
def test_references_to_what_is_not_there_are_refused(field, value, message):
    changed = getattr(golden_head(), field).copy()
    changed.flat[0] = value
    with pytest.raises(InputError, match=message):
        dataclasses.replace(golden_head(), **{field: changed})


def test_files_that_are_no_heads_are_refused(tmp_path):
    path = tmp_path / "head.npz"
    with pytest.raises(InputError, match=r"no such file; `asccl assets export"):
        load_head_model(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged or no npz file"):
        load_head_model(path)
    np.savez(path, format=np.array("asccl-head-0"))
    with pytest.raises(InputError, match="format 'asccl-head-0', expected 'asccl-head-1'"):
        load_head_model(path)
    np.savez(path, format=np.array("asccl-head-1"), weight=np.zeros(1), faces=np.zeros((1, 3), np.int32))
    with pytest.raises(InputError, match=r"missing fields \['dynamic.*'v_template'\], unknown fields \['weight'\]"):
        load_head_model(path)
    np.savez(path, format=np.array("asccl-head-1"), faces=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        load_head_model(path)
