"""Pickles as data: what is read, and that nothing in a file is ever run."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from asccl_jax.errors import InputError
from data_prep.head_fit.safe_pickle import load_object_npy, load_pickle

ARRAYS: dict[str, Any] = {
    "floats": np.linspace(0, 1, 6).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big_endian": np.arange(4, dtype=">i4"),
    "truth": np.array([True, False]),
    "text": np.array(["left", "right"]),
    "objects": np.array([None, "a", 3], object),
    "scalar": np.float32(2.5),
    "single": np.array(7.0),
    "empty": np.zeros((0, 3)),
}


def test_numpy_arrays_of_every_protocol_come_back(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"arrays{protocol}.pkl"
        path.write_bytes(pickle.dumps(OrderedDict(ARRAYS), protocol=protocol))
        read = load_pickle(path)
        for name, array in ARRAYS.items():
            assert read[name].dtype == array.dtype, (protocol, name)
            np.testing.assert_array_equal(read[name], array, err_msg=f"{protocol} {name}")


def test_python_2_strings_of_bytes_are_numbers(tmp_path: Path) -> None:
    """As FLAME's own file has them: one-byte strings where Python 3 has bytes."""
    values = np.array([-1.5, 0.0, 1e300])
    content = values.tobytes()
    stream = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x03\x85cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + bytes([len(content)])
        + content
        + b"tb."
    )
    (tmp_path / "two.pkl").write_bytes(stream)
    np.testing.assert_array_equal(load_pickle(tmp_path / "two.pkl"), values)


@pytest.mark.parametrize("protocol", [0, 2])
def test_chumpy_objects_are_the_arrays_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
            stand_in = types.ModuleType(module)
            setattr(stand_in, name, type(name, (), {"__module__": module}))
            patch.setitem(sys.modules, module, stand_in)
        ch, select = sys.modules["chumpy.ch"].Ch(), sys.modules["chumpy.reordering"].Select()
        ch.__dict__.update(x=np.arange(12.0).reshape(3, 4), _dirty_vars={"x"}, _itr=None)
        select.__dict__.update(a=ch, idxs=np.array([5, 0, 11, 2]), preferred_shape=(2, 2))
        (tmp_path / "model.pkl").write_bytes(pickle.dumps({"ch": ch, "select": select, "again": ch}, protocol))
    read = load_pickle(tmp_path / "model.pkl")
    np.testing.assert_array_equal(read["ch"], np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(read["select"], [[5, 0], [11, 2]])
    assert read["again"] is read["ch"]
    assert "chumpy" not in sys.modules


def _pickled_transform(monkeypatch: pytest.MonkeyPatch, name: str, state: dict[str, Any], protocol: int) -> bytes:
    """A pickle as scikit-image writes it, of a stand-in for its class."""
    module = "skimage.transform._geometric"
    with monkeypatch.context() as patch:
        stand_in = types.ModuleType(module)
        kind = type(name, (), {"__module__": module})
        setattr(stand_in, name, kind)
        for absent in ("skimage", "skimage.transform"):
            patch.setitem(sys.modules, absent, types.ModuleType(absent))
        patch.setitem(sys.modules, module, stand_in)
        transform = kind()
        transform.__dict__.update(state)
        return pickle.dumps({"tform": transform}, protocol)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["SimilarityTransform", "ProjectiveTransform"])
def test_transforms_of_scikit_image_are_their_matrices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, name: str
) -> None:
    matrix = np.array([[1.5, -0.1, 3], [0.1, 1.5, -7], [0, 0, 1]])
    path = tmp_path / "000000.pkl"
    path.write_bytes(_pickled_transform(monkeypatch, name, {"params": matrix}, protocol))
    read = load_pickle(path)["tform"]
    assert type(read) is np.ndarray
    np.testing.assert_array_equal(read, matrix)
    assert "skimage.transform._geometric" not in sys.modules


@pytest.mark.parametrize("state", [{"matrix": np.eye(3)}, {"params": np.eye(2)}, {"params": "a"}])
def test_transforms_without_a_matrix_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any]
) -> None:
    (tmp_path / "odd.pkl").write_bytes(_pickled_transform(monkeypatch, "SimilarityTransform", state, 2))
    with pytest.raises(InputError, match=r"odd\.pkl: damaged.*a transform w"):
        load_pickle(tmp_path / "odd.pkl")


def test_other_names_of_scikit_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "call.pkl").write_bytes(b"cskimage.transform._geometric\nestimate_transform\n.")
    with pytest.raises(InputError, match="refused, nothing was run"):
        load_pickle(tmp_path / "call.pkl")


def test_sparse_matrices_are_rebuilt_and_checked(tmp_path: Path) -> None:
    dense = np.array([[0, 2.5, 0], [1, 0, -3]])
    for layout in (scipy.sparse.csc_matrix, scipy.sparse.csr_matrix):
        matrix = layout(dense)
        (tmp_path / "matrix.pkl").write_bytes(pickle.dumps(matrix, 2))
        np.testing.assert_array_equal(load_pickle(tmp_path / "matrix.pkl").toarray(), dense)
        matrix.indices[0] = 99
        (tmp_path / "matrix.pkl").write_bytes(pickle.dumps(matrix, 2))
        with pytest.raises(InputError, match="damaged"):
            load_pickle(tmp_path / "matrix.pkl")


def test_object_file_of_numpy_may_hold_torch_tensors(tmp_path: Path) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4)
    content = {"tensor": tensor, "turned": tensor.permute(2, 0, 1)[1:], "array": np.arange(3)}
    np.save(tmp_path / "objects.npy", np.array(content, object), allow_pickle=True)
    read = load_object_npy(tmp_path / "objects.npy")
    np.testing.assert_array_equal(read["tensor"], tensor.numpy())
    np.testing.assert_array_equal(read["turned"], tensor.numpy().transpose(2, 0, 1)[1:])
    np.testing.assert_array_equal(read["array"], np.arange(3))
    np.save(tmp_path / "plain.npy", np.arange(5.0))
    np.testing.assert_array_equal(load_object_npy(tmp_path / "plain.npy"), np.arange(5.0))


class _Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def _hidden_in_array(hostile: Any) -> Any:
    array = np.empty(2, object)
    array[1] = {"deep": (1, [hostile])}
    return array


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("hide", [lambda hostile: hostile, lambda hostile: {"v_template": hostile}, _hidden_in_array])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "system"),
        (builtins.eval, "eval"),
        (builtins.getattr, "getattr"),
        (np.load, "load"),
        (np.fromfile, "fromfile"),
        (torch.load, "load"),
    ],
)
def test_hostile_names_are_refused_and_told(tmp_path: Path, protocol: int, hide: Any, function: Any, name: str) -> None:
    marker = tmp_path / "marker"
    command = f"open({str(marker)!r}, 'w')" if function is builtins.eval else f"touch {marker}"
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps(hide(_Call(function, command)), protocol))
    with pytest.raises(InputError, match=rf"refused, nothing was run: the pickle names \S+\.{name}, ") as caught:
        load_pickle(tmp_path / "hostile.pkl")
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    np.save(tmp_path / "hostile.npy", np.array(hide(_Call(function, command)), object), allow_pickle=True)
    with pytest.raises(InputError, match=name):
        load_object_npy(tmp_path / "hostile.npy")
    assert not marker.exists()


def test_call_nested_in_the_arguments_of_a_known_function_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    inner = _Call(os.system, f"touch {marker}")
    scalar = np.float64(1).__reduce__()[0]
    outer = _Call(scalar, np.dtype("f8"), inner)
    (tmp_path / "nested.pkl").write_bytes(pickle.dumps(outer))
    with pytest.raises(InputError, match="system"):
        load_pickle(tmp_path / "nested.pkl")
    assert not marker.exists()


def test_bytes_that_pass_for_a_torch_storage_are_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    hostile = io.BytesIO()
    torch.save(_Call(os.system, f"touch {marker}"), hostile, _use_new_zipfile_serialization=False)
    call = _Call(torch.storage._load_from_bytes, hostile.getvalue())
    (tmp_path / "storage.pkl").write_bytes(pickle.dumps(call))
    with pytest.raises(InputError, match=r"storage\.pkl"):
        load_pickle(tmp_path / "storage.pkl")
    assert not marker.exists()


def test_tensor_reaching_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    floats = torch.arange(4.0).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=floats, dtype=torch.float32, _internal=True)
    call = _Call(torch._utils._rebuild_tensor_v2, storage, 2, (3,), (1,), False, OrderedDict())
    (tmp_path / "tensor.pkl").write_bytes(pickle.dumps(call))
    with pytest.raises(InputError, match="beyond its storage"):
        load_pickle(tmp_path / "tensor.pkl")


def test_forged_array_of_object_pointers_is_refused(tmp_path: Path) -> None:
    """NumPy's own unpickling would take these eight bytes for the address of an object."""
    array = np.array([1.0])
    reconstruct, arguments, state = tuple(array.__reduce__())
    forged = (state[0], state[1], np.dtype(object), state[3], struct.pack("<q", 0x41))

    class _Forged:
        def __reduce__(self) -> tuple[Any, ...]:
            return reconstruct, arguments, forged

    (tmp_path / "forged.pkl").write_bytes(pickle.dumps(_Forged()))
    with pytest.raises(InputError, match="does not fit its shape"):
        load_pickle(tmp_path / "forged.pkl")


def test_known_functions_cannot_be_changed_by_a_file(tmp_path: Path) -> None:
    """BUILD with a state on a function sets its attributes; here it fails."""
    stream = b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__)s\x86b."
    (tmp_path / "change.pkl").write_bytes(stream)
    with pytest.raises(InputError, match="a state for a function"):
        load_pickle(tmp_path / "change.pkl")


def test_doubling_lists_are_read_in_no_time(tmp_path: Path) -> None:
    tree: list[Any] = [1]
    for _ in range(60):
        tree = [tree, tree]
    (tmp_path / "tree.pkl").write_bytes(pickle.dumps(tree))
    assert len(load_pickle(tmp_path / "tree.pkl")) == 2


@pytest.mark.parametrize("keep", [0, 1, 40, 150])
def test_truncated_file_is_damaged_not_a_traceback(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.pkl"
    path.write_bytes(pickle.dumps({"v_template": np.arange(30.0)})[:keep])
    with pytest.raises(InputError, match=r"cut\.pkl: damaged or not a pickle"):
        load_pickle(path)
    np.save(tmp_path / "whole.npy", np.array({"a": np.arange(30.0)}, object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cut\.npy: damaged or not a"):
        load_object_npy(tmp_path / "cut.npy")


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pkl: cannot be read: No such file"):
        load_pickle(tmp_path / "none.pkl")
