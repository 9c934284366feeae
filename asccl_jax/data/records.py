"""TFRecord shards: written whole, read at random, every byte under a checksum.

A record is its length (uint64), the masked CRC32C of those eight bytes, the data, and the masked CRC32C of the data,
all little-endian: TensorFlow's TFRecord without compression. Beside a shard lies `<shard>.index`: the uint64 offsets
of its records and of its end. The index saves a scan and is otherwise expendable.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

import google_crc32c
import numpy as np
from jaxtyping import Float32, Int64

from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file, remove_file, write_atomically

__all__ = [
    "INDEX_SUFFIX",
    "RecordSource",
    "RecordWriter",
    "Value",
    "Values",
    "decode_example",
    "encode_example",
    "file_sha256",
    "index_path",
    "read_offsets",
]

INDEX_SUFFIX = ".index"

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_OVERHEAD = _HEADER.size + _FOOTER.size


def index_path(path: Path) -> Path:
    """Returns where the offsets of a shard lie."""
    return path.with_name(path.name + INDEX_SUFFIX)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RecordWriter:
    """Writes one shard; a context manager.

    The shard and its index appear when the block ends well. An exception, or a kill, leaves what was there before.

    Attributes:
      sha256: Digest of the finished shard in hexadecimal, empty until the block has ended.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._offsets = [0]
        self._digest = hashlib.sha256()
        self._stack = contextlib.ExitStack()
        self._file: BinaryIO | None = None
        self.sha256 = ""

    @property
    def records(self) -> int:
        """Records written so far."""
        return len(self._offsets) - 1

    def __enter__(self) -> RecordWriter:
        self._file = self._stack.enter_context(atomic_file(self._path))
        return self

    def write(self, data: bytes) -> None:
        """Appends one record."""
        assert self._file is not None, "RecordWriter is a context manager"
        length = struct.pack("<Q", len(data))
        for piece in (length, _FOOTER.pack(_masked_crc(length)), data, _FOOTER.pack(_masked_crc(data))):
            self._file.write(piece)
            self._digest.update(piece)
        self._offsets.append(self._offsets[-1] + len(data) + _OVERHEAD)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        # An older shard's index goes first and the new one comes last: no crash leaves an index of another shard.
        with self._stack:
            remove_file(index_path(self._path))
        write_atomically(index_path(self._path), np.asarray(self._offsets, "<u8").tobytes())
        self.sha256 = self._digest.hexdigest()


def read_offsets(path: Path) -> Int64[np.ndarray, " n_plus_1"]:
    """Returns where each record of a shard starts, and where the last one ends.

    Reads the index beside the shard; where it is absent or of another length than the shard, scans the shard.

    Raises:
      InputError: The shard is missing, unreadable or truncated; names the record where it breaks off.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            offsets = _load_index(index_path(path))
            if offsets is None or offsets[-1] != size:
                offsets = _scan(file, path, size)
    except OSError as error:
        raise InputError(f"cannot read shard {path}: {error.strerror}") from error
    return offsets


def _load_index(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    content = path.read_bytes()
    if not content or len(content) % 8:
        return None
    offsets = np.frombuffer(content, "<u8").astype(np.int64)
    well_formed = offsets[0] == 0 and np.all(np.diff(offsets) >= _OVERHEAD)
    return offsets if well_formed else None


def _scan(file: BinaryIO, path: Path, size: int) -> np.ndarray:
    offsets = [0]
    while offsets[-1] < size:
        header = os.pread(file.fileno(), _HEADER.size, offsets[-1])
        record = len(offsets) - 1
        length = _check_header(header, path, record)
        offsets.append(offsets[-1] + length + _OVERHEAD)
        if offsets[-1] > size:
            raise InputError(
                f"{path}: truncated in record {record}: {size} bytes, expected {offsets[-1]} or more; {_REMEDY}"
            )
    return np.asarray(offsets, np.int64)


class RecordSource:
    """Random access to the records of some shards, numbered through in the order of the shards.

    Safe to read from several threads, to pickle, and to carry through a fork.

    Args:
      paths: Shards.
      verify: Compare the checksum of each record as it is read.

    Raises:
      InputError: A shard is missing or truncated.
    """

    def __init__(self, paths: Sequence[Path | str], *, verify: bool = True) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.offsets = tuple(read_offsets(path) for path in self.paths)
        self.starts = np.cumsum([0, *(len(offsets) - 1 for offsets in self.offsets)])
        self._verify = verify
        self._start_closed()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, record: int) -> bytes:
        """Returns the data of a record; raises `InputError` where it is corrupt, `IndexError` out of range."""
        shard, local = self.locate(record)
        path, offsets = self.paths[shard], self.offsets[shard]
        first, size = int(offsets[local]), int(offsets[local + 1] - offsets[local])
        framed = os.pread(self._descriptor(shard), size, first)
        if len(framed) != size:
            raise InputError(f"{path}: truncated in record {local}: {len(framed)} of {size} bytes; {_REMEDY}")
        length = _check_header(framed[: _HEADER.size], path, local)
        if length + _OVERHEAD != size:
            expected = f"{length} bytes, its index says {size - _OVERHEAD}"
            raise InputError(
                f"{path}: record {local} has {expected}; remove {index_path(path)}: it is rebuilt on reading"
            )
        data = framed[_HEADER.size : -_FOOTER.size]
        if self._verify and _masked_crc(data) != _FOOTER.unpack(framed[-_FOOTER.size :])[0]:
            raise InputError(f"{path}: record {local} is corrupt: its checksum differs; {_REMEDY}")
        return data

    def digest(self, records: Iterable[int]) -> str:
        """Returns a digest of some records in hexadecimal, by their lengths and checksums, which alone are read."""
        found = hashlib.sha256()
        for record in records:
            shard, local = self.locate(record)
            first, end = self.offsets[shard][local : local + 2].tolist()
            found.update(os.pread(self._descriptor(shard), _FOOTER.size, end - _FOOTER.size))
            found.update(struct.pack("<Q", end - first))
        return found.hexdigest()

    def locate(self, record: int) -> tuple[int, int]:
        """Returns which shard holds a record, and its number there."""
        if not 0 <= record < len(self):
            raise IndexError(f"record {record} of {len(self)}")
        shard = int(np.searchsorted(self.starts, record, side="right")) - 1
        return shard, record - int(self.starts[shard])

    def describe(self, record: int) -> str:
        """Returns a record's file and number there, for messages."""
        shard, local = self.locate(record)
        return f"{self.paths[shard]}, record {local}"

    def __iter__(self) -> Iterator[bytes]:
        return (self[record] for record in range(len(self)))

    def __repr__(self) -> str:
        return f"RecordSource({len(self)} records in {len(self.paths)} shards)"

    def _descriptor(self, shard: int) -> int:
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            with self._lock:
                if shard not in self._descriptors:
                    self._descriptors[shard] = _open_shard(self.paths[shard])
                descriptor = self._descriptors[shard]
        return descriptor

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        with self._lock:
            _close_all(self._descriptors)

    def _start_closed(self) -> None:
        self._lock = threading.Lock()
        self._descriptors: dict[int, int] = {}
        # When the interpreter ends the system closes the files; by then a method of ours may call what is gone.
        weakref.finalize(self, _close_all, self._descriptors).atexit = False

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_descriptors")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._start_closed()


_REMEDY = "the shard is damaged: copy it again, or remove it and prepare the data set again"


def _open_shard(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot read shard {path}: {error.strerror}") from error


def _close_all(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _check_header(header: bytes, path: Path, record: int) -> int:
    if len(header) != _HEADER.size:
        raise InputError(f"{path}: truncated in record {record}: it breaks off inside the header; {_REMEDY}")
    length, checksum = _HEADER.unpack(header)
    if _masked_crc(header[:8]) != checksum:
        raise InputError(f"{path}: record {record} is corrupt: the checksum of its length differs; {_REMEDY}")
    return length


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


# `tf.train.Example` to and from bytes, without TensorFlow.
#
# The message is a map from names to lists of bytes, floats or integers. Its wire format is small and fixed, so it is
# written here by hand: a frame then costs one copy of its JPEG and a dozen short varints. Names are in byte order, so
# equal values give equal bytes, those of protobuf's deterministic serialisation.

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
