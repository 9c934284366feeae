"""`tf.train.Example` to and from bytes, without TensorFlow.

The message is a map from names to lists of bytes, floats or integers. Its wire format is small and fixed, so it is
written here by hand: a frame then costs one copy of its JPEG and a dozen short varints. Names are in byte order, so
equal values give equal bytes, those of protobuf's deterministic serialisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64

from asccl_jax.errors import InputError

__all__ = ["Value", "Values", "decode_example", "encode_example"]

Value: TypeAlias = bytes | str | int | float | Sequence[bytes] | Sequence[str] | np.ndarray
"""What can be stored: text and bytes, or numbers; an array is flattened and its dtype decides floats or integers."""

Values: TypeAlias = list[bytes] | Float32[np.ndarray, " n"] | Int64[np.ndarray, " n"]
"""What comes back: always a list or a flat array."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # fields of tf.train.Feature


def encode_example(values: Mapping[str, Value]) -> bytes:
    """Returns the bytes of a `tf.train.Example`; equal values give equal bytes.

    >>> encode_example({"frame": 3}).hex()
    '0a100a0e0a056672616d6512051a030a0103'
    """
    entries = (_field(1, name.encode()) + _field(2, _feature(values[name])) for name in sorted(values))
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def decode_example(data: bytes, *, only: str | None = None) -> dict[str, Values]:
    """Returns the features of a `tf.train.Example` by name.

    Args:
      data: The message.
      only: The one feature to return; the search ends where it is found.

    Raises:
      InputError: `data` is no such message.
    """
    features: dict[str, Values] = {}
    try:
        for name, start, stop in _entries(data):
            if only in (None, name):
                features[name] = _decode_feature(data, start, stop)
                if only is not None:
                    break
    except (ValueError, IndexError) as error:
        raise InputError(f"not a tf.train.Example of {len(data)} bytes: {error}") from error
    return features


def _feature(value: Value) -> bytes:
    if isinstance(value, bytes | str):
        value = [value if isinstance(value, bytes) else value.encode()]
    if not isinstance(value, int | float | np.ndarray | np.generic):
        items = (item if isinstance(item, bytes) else item.encode() for item in value)
        return _field(_BYTES_LIST, b"".join(_field(1, item) for item in items))
    array = np.ravel(np.asarray(value))
    if np.issubdtype(array.dtype, np.floating):
        packed, number = array.astype("<f4").tobytes(), _FLOAT_LIST
    else:
        # Casting "safe" refuses what an int64 cannot hold: uint64, text, objects.
        integers = array.astype(np.int64, casting="safe")
        packed, number = b"".join(_varint(item & 0xFFFF_FFFF_FFFF_FFFF) for item in integers.tolist()), _INT64_LIST
    return _field(number, _field(1, packed) if packed else b"")


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _fields(data: bytes, position: int, stop: int, *, only: int = 0) -> Iterator[tuple[int, int, int, int]]:
    """Yields (number, wire type, first byte, end) of a message's fields; `only` picks one number."""
    while position < stop:
        tag, start = _read_varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, start = _read_varint(data, start)
            position = start + length
        elif wire == _VARINT:
            _, position = _read_varint(data, start)
        elif wire == _FIXED32:
            position = start + 4
        elif wire == _FIXED64:
            position = start + 8
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if position > stop:
            raise ValueError(f"a field runs past its end at byte {start}")
        if only in (0, number):
            yield number, wire, start, position


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than ten bytes at byte {position}")


def _entries(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yields (name, first byte, end) of each feature."""
    for _, _, start, stop in _fields(data, 0, len(data), only=1):
        for _, _, entry_start, entry_stop in _fields(data, start, stop, only=1):
            name, value = "", (0, 0)
            for number, _, field_start, field_stop in _fields(data, entry_start, entry_stop):
                if number == 1:
                    name = data[field_start:field_stop].decode()
                elif number == 2:
                    value = (field_start, field_stop)
            yield name, *value


def _decode_feature(data: bytes, start: int, stop: int) -> Values:
    result: Values = []
    for kind, _, list_start, list_stop in _fields(data, start, stop):
        # Numbers are packed into one field by every writer we know; the format also allows one field a number.
        spans = [(first, end) for _, _, first, end in _fields(data, list_start, list_stop, only=1)]
        if kind == _BYTES_LIST:
            result = [data[first:end] for first, end in spans]
            continue
        packed = data[slice(*spans[0])] if len(spans) == 1 else b"".join(data[first:end] for first, end in spans)
        if kind == _FLOAT_LIST:
            result = np.frombuffer(packed, "<f4").astype(np.float32, copy=False)
        elif kind == _INT64_LIST:
            result = _unpack_varints(np.frombuffer(packed, np.uint8))
    return result


def _unpack_varints(groups: np.ndarray) -> Int64[np.ndarray, " n"]:
    ends = np.flatnonzero(groups < 0x80)
    if groups.size and (not ends.size or ends[-1] != groups.size - 1):
        raise ValueError("a list of integers ends inside a number")
    if not groups.size:
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise ValueError("a number of more than ten bytes")
    shifts = (7 * (np.arange(groups.size) - np.repeat(starts, lengths))).astype(np.uint64)
    return np.add.reduceat((groups & 0x7F).astype(np.uint64) << shifts, starts).view(np.int64)
