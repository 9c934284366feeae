"""Pickles read as data: arrays come out as arrays, nothing that a file names is ever imported or called.

A pickle is a program, and FLAME's files are pickles that anybody may have passed on. Here every name in the file must
be one of a short list, and each name on it stands for a function of this file that rebuilds data under its own checks.
Even NumPy's own constructors are not called: with a forged data type they read memory that is not theirs.
"""

from __future__ import annotations

import abc
import collections
import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse
from numpy.lib import format as npy_format

from asccl_jax.errors import InputError

__all__ = ["load_object_npy", "load_pickle"]


def load_pickle(path: Path) -> Any:
    """Returns what a pickle holds, of Python 2 or 3: containers, numbers, text, arrays, SciPy's sparse matrices.

    Chumpy objects come back as the arrays they hold (chumpy is not needed), PyTorch tensors as NumPy arrays, and
    scikit-image's transforms, which NED's code dicts hold, as their 3x3 matrices.

    Raises:
      InputError: No such file, a name that is not on the list (it is told), a damaged file.
    """
    with _opened(path) as file:
        return _load(file, path)


def load_object_npy(path: Path) -> Any:
    """Returns what `numpy.save` stored: a numeric array, or the object that a 0-dimensional object array holds.

    Raises:
      InputError: As `load_pickle`.
    """
    with _opened(path) as file:
        try:
            version = npy_format.read_magic(file)
            read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            stored_type = read_header(file)[2]
            if not stored_type.hasobject:
                file.seek(0)
                return npy_format.read_array(file, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise _damaged(path, "a NumPy file (.npy)", error) from error
        content = _load(file, path)
    return content.item() if isinstance(content, np.ndarray) and content.shape == () else content


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _load(file: BinaryIO, path: Path) -> Any:
    try:
        return _plain(_Unpickler(file, encoding="latin1").load(), {})
    except _RefusedNameError as error:
        raise InputError(
            f"{path}: refused, nothing was run: the pickle names {error}, and only arrays of numpy, chumpy,"
            " scipy.sparse, scikit-image and torch are read; get the file again from where it was published"
        ) from None
    # A damaged pickle can fail in any way.
    except Exception as error:
        raise _damaged(path, "a pickle", error) from error


def _damaged(path: Path, kind: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return InputError(f"{path}: damaged or not {kind}: {reason}; get the file again")


class _RefusedNameError(pickle.UnpicklingError):
    """The name of a global that is not on the list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get((module, name))
        if known is None:
            raise _RefusedNameError(f"{module}.{name}")
        return known

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedNameError(f"the persistent object {str(pid)[:60]!r}")


class _Function:
    """A function that a pickle can call but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state for a function")


class _Held(abc.ABC):
    """An object of a known class, kept as the state that the file gives it."""

    def __new__(cls, *arguments: Any) -> _Held:
        held = super().__new__(cls)
        held.arguments = arguments
        held.state = None
        return held

    arguments: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @abc.abstractmethod
    def value(self, plain: Callable[[Any], Any]) -> Any:
        """Returns the data; `plain` gives that of objects within."""


class _DataType(_Held):
    """numpy.dtype("f8", align, copy) with state (version, byte order, ...)."""

    def value(self, plain: Callable[[Any], Any]) -> np.dtype[Any]:
        del plain
        dtype = np.dtype(_text(self.arguments[0]))
        if dtype.kind not in "biufcSUO" or dtype.names or dtype.subdtype:
            raise ValueError(f"arrays of type {dtype} are not read")
        if self.state is not None:
            if any(part is not None for part in self.state[2:5]):
                raise ValueError("structured arrays are not read")
            dtype = dtype.newbyteorder(">") if _text(self.state[1]) == ">" else dtype
        return dtype


class _Array(_Held):
    """numpy.ndarray with state (version, shape, type, in columns?, bytes or list)."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        if self.state is None:
            raise ValueError("an array without content")
        shape, dtype, in_columns, content = self.state[-4:]
        return _array(content, plain(dtype), shape, "F" if in_columns else "C", plain)


class _FlatArray(_Held):
    """numpy's way to pickle contiguous arrays since protocol 5: bytes, type, shape, order."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        content, dtype, shape, order = self.arguments
        return _array(content, plain(dtype), shape, order, plain)


class _Scalar(_Held):
    def value(self, plain: Callable[[Any], Any]) -> Any:
        dtype, content = self.arguments
        return _array(content, plain(dtype), (), "C", plain)[()]


class _Chumpy(_Held):
    """chumpy's Ch: an array with bookkeeping about derivatives, of which `x` is the value."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        if not isinstance(self.state, dict) or "x" not in self.state:
            raise ValueError("a chumpy object without its value `x`")
        return np.asarray(plain(self.state["x"]))


class _ChumpySelect(_Held):
    """chumpy's Select: entries of another array."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        entries = np.asarray(plain(self.state["a"])).ravel()[np.asarray(plain(self.state["idxs"]))]
        shape = plain(self.state.get("preferred_shape"))
        return entries if shape is None else entries.reshape(shape)


class _Transform(_Held):
    """scikit-image's 2D transforms: their homogeneous matrix."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        if not isinstance(self.state, dict) or "params" not in self.state:
            raise ValueError("a transform without its matrix `params`")
        matrix = np.asarray(plain(self.state["params"]))
        if matrix.shape != (3, 3) or matrix.dtype.kind != "f":
            raise ValueError(f"a transform whose matrix is {matrix.shape} {matrix.dtype}, expected 3 x 3 numbers")
        return matrix


class _Sparse(_Held):
    """SciPy's matrices by columns or rows; coordinates are checked."""

    layout: type = scipy.sparse.csc_matrix

    def value(self, plain: Callable[[Any], Any]) -> Any:
        state = self.state
        shape = tuple(int(size) for size in plain(state.get("_shape", state.get("shape"))))
        matrix = self.layout(tuple(plain(state[key]) for key in ("data", "indices", "indptr")), shape=shape)
        matrix.check_format(full_check=True)
        return matrix


class _SparseRows(_Sparse):
    layout = scipy.sparse.csr_matrix


class _Tensor(_Held):
    """PyTorch's strided tensor: storage, offset, sizes, strides, and what derivatives need."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        storage, offset, sizes, strides = self.arguments[:4]
        flat = plain(storage)
        reach = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if min((offset, *sizes, *strides)) < 0 or (math.prod(sizes) and reach >= len(flat)):
            raise ValueError("a tensor that reaches beyond its storage")
        if not math.prod(sizes):
            return np.empty(sizes, flat.dtype)
        steps = [stride * flat.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(flat[offset:], sizes, steps).copy()


class _Storage(_Held):
    """PyTorch's storage, saved by `torch.save` inside the pickle."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        del plain
        import torch

        storage = torch.load(io.BytesIO(_bytes(self.arguments[0])), map_location="cpu", weights_only=True)
        return torch.tensor([], dtype=storage.dtype).set_(storage).numpy()


def _array(content: Any, dtype: np.dtype[Any], shape: Any, order: str, plain: Callable[[Any], Any]) -> np.ndarray:
    shape = tuple(int(size) for size in shape)
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    if dtype.kind != "O":
        return np.frombuffer(_bytes(content), dtype).reshape(shape, order="F" if order == "F" else "C").copy()
    if not isinstance(content, list) or len(content) != math.prod(shape):
        raise ValueError("an array of objects whose content does not fit its shape")
    array = np.empty(len(content), object)
    for index, item in enumerate(content):
        array[index] = plain(item)
    return array.reshape(shape, order="F" if order == "F" else "C")


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Returns the data that loaded objects stand for; one object that occurs twice is turned once."""
    if not isinstance(value, _Held | dict | list | tuple | set | _Function | type):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Held):
        done[id(value)] = None  # an object inside itself has no value
        done[id(value)] = value.value(lambda inner: _plain(inner, done))
    elif isinstance(value, dict):
        mapping = done[id(value)] = {}
        mapping.update({key: _plain(item, done) for key, item in value.items()})
    elif isinstance(value, list):
        items = done[id(value)] = []
        items.extend(_plain(item, done) for item in value)
    elif isinstance(value, tuple):
        done[id(value)] = tuple(_plain(item, done) for item in value)
    elif isinstance(value, set):
        done[id(value)] = {_plain(item, done) for item in value}
    else:
        raise ValueError("a function where data are expected")
    return done[id(value)]


def _bytes(content: Any) -> bytes:
    """Bytes of a state; a Python 2 string comes as text in latin1."""
    return content.encode("latin1") if isinstance(content, str) else bytes(memoryview(content))


def _text(content: Any) -> str:
    return content.decode("latin1") if isinstance(content, bytes) else str(content)


def _encoded(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in old protocols."""
    if encoding != "latin1":
        raise ValueError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


def _empty() -> bytes:
    """What Python 3 writes for no bytes in old protocols."""
    return b""


def _made(kind: Any, base: Any = object, state: Any = None) -> _Held:
    """An empty object, in the ways of protocols 0 and 1 (class, base, state) and 2 (class)."""
    if not (isinstance(kind, type) and issubclass(kind, _Held)) or base is not object or state is not None:
        raise ValueError("an object of an unknown kind")
    return kind()


_OLD_AND_NEW_NUMPY = ("numpy.core", "numpy._core")
_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DataType,
    **{(f"{core}.multiarray", "_reconstruct"): _Function(lambda *_: _Array()) for core in _OLD_AND_NEW_NUMPY},
    **{(f"{core}.multiarray", "scalar"): _Scalar for core in _OLD_AND_NEW_NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _FlatArray for core in _OLD_AND_NEW_NUMPY},
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _ChumpySelect,
    **{(f"scipy.sparse.{file}", "csc_matrix"): _Sparse for file in ("csc", "_csc")},
    **{(f"scipy.sparse.{file}", "csr_matrix"): _SparseRows for file in ("csr", "_csr")},
    **{
        ("skimage.transform._geometric", name): _Transform
        for name in ("SimilarityTransform", "EuclideanTransform", "AffineTransform", "ProjectiveTransform")
    },
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    **{(file, "_reconstructor"): _Function(_made) for file in ("copy_reg", "copyreg")},
    **{(file, "__newobj__"): _Function(_made) for file in ("copy_reg", "copyreg")},
    **{(file, "object"): object for file in ("__builtin__", "builtins")},
    **{(file, "set"): set for file in ("__builtin__", "builtins")},
    **{(file, "bytes"): _Function(_empty) for file in ("__builtin__", "builtins")},
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _Function(_encoded),
}
