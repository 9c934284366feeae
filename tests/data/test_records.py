import concurrent.futures
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from asccl_jax.data.records import (
    RecordSource,
    RecordWriter,
    decode_example,
    encode_example,
    file_sha256,
    index_path,
    read_offsets,
)
from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file

RECORDS = [b"first", b"", b"x" * 1000, b"last"]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard"
    with RecordWriter(path) as writer:
        for record in RECORDS:
            writer.write(record)
    return path


def _masked(data):
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_checksum_is_crc32c():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # check value of the CRC-32C standard


def test_file_is_tfrecord_byte_by_byte(shard):
    expected = b"".join(
        struct.pack("<Q", len(data))
        + struct.pack("<I", _masked(struct.pack("<Q", len(data))))
        + data
        + struct.pack("<I", _masked(data))
        for data in RECORDS
    )
    assert shard.read_bytes() == expected
    assert index_path(shard).read_bytes() == struct.pack("<5Q", 0, 21, 37, 1053, 1073)


def test_grain_reads_the_same_records(shard):
    import grain

    assert list(grain.experimental.TFRecordIterDataset(str(shard))) == RECORDS


def test_records_of_all_shards_are_numbered_through(shard, tmp_path):
    with RecordWriter(tmp_path / "empty"):
        pass
    with RecordWriter(tmp_path / "other") as writer:
        writer.write(b"other")
    source = RecordSource([shard, tmp_path / "empty", tmp_path / "other"])
    assert [source[number] for number in range(len(source))] == [*RECORDS, b"other"] == list(source)
    assert source.describe(4) == f"{tmp_path / 'other'}, record 0"
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            source[outside]


@pytest.mark.parametrize("spoil", ["remove", "cut", "garble", "stale"])
def test_a_missing_or_useless_index_is_made_good_by_scanning(shard, spoil):
    index = index_path(shard)
    content = index.read_bytes()
    if spoil == "remove":
        index.unlink()
    else:
        index.write_bytes({"cut": content[:-8], "garble": content[:11], "stale": struct.pack("<2Q", 0, 21)}[spoil])
    assert list(RecordSource([shard])) == RECORDS


def test_an_index_that_lies_is_named(shard):
    offsets = np.fromfile(index_path(shard), "<u8")
    np.delete(offsets, 2).tofile(index_path(shard))
    with pytest.raises(InputError, match=r"record 1 has 0 bytes, its index says 1016; remove .*shard\.index"):
        RecordSource([shard])[1]


def test_reading_is_safe_in_threads_and_after_pickling(shard):
    source = pickle.loads(pickle.dumps(RecordSource([shard, shard])))
    numbers = list(range(len(source))) * 50
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.__getitem__, numbers)) == [RECORDS[number % 4] for number in numbers]


@pytest.mark.parametrize("make", [lambda source: source, lambda source: pickle.loads(pickle.dumps(source))])
def test_a_source_that_is_dropped_closes_its_files(shard, make):
    def open_shards():
        return sum(link.resolve() == shard.resolve() for link in Path("/proc/self/fd").iterdir())

    source = make(RecordSource([shard]))
    assert source[0] == RECORDS[0]
    assert open_shards() == 1
    source.close()
    assert open_shards() == 0
    assert source[0] == RECORDS[0]
    assert open_shards() == 1
    del source
    assert open_shards() == 0


def test_a_source_that_outlives_the_interpreters_modules_ends_quietly(shard):
    program = (
        "import sys\n"
        "from asccl_jax.data import records\n"
        "class Late:\n"
        "    def __del__(self):\n"
        "        vars(records).update(dict.fromkeys(vars(records)))\n"  # as the interpreter does when it ends
        "source = records.RecordSource(sys.argv[1:])\n"
        "assert source[0] == b'first'\n"
        "sys.modules['late'], sys.modules['later'] = Late(), source\n"
        "del source\n"
    )
    command = [sys.executable, "-c", program, str(shard)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("byte", range(37, 1053, 97))
def test_any_flipped_bit_of_a_record_is_found_and_its_neighbours_stay_readable(shard, byte):
    content = bytearray(shard.read_bytes())
    content[byte] ^= 4
    shard.write_bytes(content)
    source = RecordSource([shard])
    with pytest.raises(InputError, match=rf"{shard}: record 2 is corrupt"):
        source[2]
    assert (source[1], source[3]) == (RECORDS[1], RECORDS[3])


def test_checksums_can_be_left_unread(shard):
    content = bytearray(shard.read_bytes())
    content[60] ^= 4
    shard.write_bytes(content)
    assert len(RecordSource([shard], verify=False)[2]) == 1000


def test_a_digest_is_of_what_the_records_hold_wherever_they_lie(tmp_path):
    for name, contents in (
        ("a", [b"one", b"two", b"three"]),
        ("b", [b"nought", b"one", b"two"]),
        ("c", [b"one", b"2"]),
    ):
        with RecordWriter(tmp_path / name) as writer:
            for data in contents:
                writer.write(data)
    a, b, c = (RecordSource([tmp_path / name]) for name in "abc")
    assert a.digest([0, 1]) == b.digest([1, 2]) == RecordSource([tmp_path / "b", tmp_path / "a"]).digest([3, 4])
    assert len({a.digest([0, 1]), a.digest([1, 0]), a.digest([0]), c.digest([0, 1])}) == 4


@pytest.mark.parametrize(("size", "record"), [(1072, 3), (1060, 3), (500, 2), (39, 2), (3, 0)])
def test_a_truncated_shard_is_refused_at_once_and_the_record_named(shard, size, record):
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(InputError, match=rf"{shard}: truncated in record {record}"):
        RecordSource([shard])


def test_a_shard_truncated_while_open_is_named(shard):
    source = RecordSource([shard])
    shard.write_bytes(shard.read_bytes()[:500])
    assert source[0] == RECORDS[0]
    with pytest.raises(InputError, match="truncated in record 2: 463 of 1016 bytes"):
        source[2]


def test_a_damaged_length_is_no_length(shard):
    content = bytearray(shard.read_bytes())
    content[21 + 6] = 0x7F  # record 1 would be petabytes long
    shard.write_bytes(content)
    index_path(shard).unlink()
    with pytest.raises(InputError, match="record 1 is corrupt: the checksum of its length"):
        RecordSource([shard])


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read shard .*absent"):
        RecordSource([tmp_path / "absent"])


def test_a_shard_written_halfway_leaves_the_earlier_one(shard):
    before = {path.name: path.read_bytes() for path in shard.parent.iterdir()}
    with pytest.raises(RuntimeError), RecordWriter(shard) as writer:
        writer.write(b"half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in shard.parent.iterdir()} == before


@pytest.mark.parametrize("step", ["remove_file", "write_atomically"])
def test_a_crash_between_shard_and_index_is_harmless(shard, step, monkeypatch):
    """Killed before the old index goes, or before the new one comes: old or new records, never a mixture."""
    import asccl_jax.data.records

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(asccl_jax.data.records, step, killed)
    with pytest.raises(KeyboardInterrupt), RecordWriter(shard) as writer:
        writer.write(b"new")
    found = list(RecordSource([shard]))
    assert found == (RECORDS if step == "remove_file" else [b"new"])


def test_the_temporary_file_of_a_crash_is_gone(shard, monkeypatch):
    import asccl_jax.data.records

    monkeypatch.setattr(asccl_jax.data.records, "remove_file", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError), RecordWriter(shard) as writer:
        writer.write(b"new")
    assert sorted(path.name for path in shard.parent.iterdir()) == ["shard", "shard.index"]


def test_writer_knows_count_and_digest(tmp_path):
    with RecordWriter(tmp_path / "shard") as writer:
        writer.write(b"one")
    assert writer.records == 1
    assert writer.sha256 == file_sha256(tmp_path / "shard")


def test_offsets_by_scan_equal_those_of_the_index(shard):
    indexed = read_offsets(shard)
    index_path(shard).unlink()
    np.testing.assert_array_equal(read_offsets(shard), indexed)


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write(b"a" * 10)
        second.write(b"b" * 5)
    assert path.read_bytes() == b"a" * 10
    assert list(tmp_path.iterdir()) == [path]


def _protobuf_example():
    """tf.train.Example built at run time from its published definition: the independent reader and writer."""
    file = descriptor_pb2.FileDescriptorProto(name="example_test.proto", package="example_test", syntax="proto3")
    repeated, optional = 3, 1
    scalar = {"bytes": 12, "float": 2, "int64": 3, "string": 9}

    def message(name, parent=None):
        entry = (parent.nested_type if parent is not None else file.message_type).add()
        entry.name = name
        return entry

    for name, kind in (("BytesList", "bytes"), ("FloatList", "float"), ("Int64List", "int64")):
        message(name).field.add(name="value", number=1, label=repeated, type=scalar[kind])
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")), start=1
    ):
        feature.field.add(
            name=name, number=number, label=optional, type=11, type_name=f".example_test.{kind}", oneof_index=0
        )
    features = message("Features")
    entry = message("FeatureEntry", features)
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=optional, type=scalar["string"])
    entry.field.add(name="value", number=2, label=optional, type=11, type_name=".example_test.Feature")
    features.field.add(
        name="feature", number=1, label=repeated, type=11, type_name=".example_test.Features.FeatureEntry"
    )
    example = message("Example")
    example.field.add(name="features", number=1, label=optional, type=11, type_name=".example_test.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("example_test.Example"))


VALUES = {
    "image": b"\x00\xff" * 200,
    "name": "Zoë 李",
    "tags": ["a", "", "c"],
    "frame": 300,
    "negative": -1,
    "extremes": np.asarray([0, 127, 128, 2**63 - 1, -(2**63)]),
    "box": np.asarray([0.5, -1.25, 3.0e30], np.float32),
    "grid": np.arange(6, dtype=np.float32).reshape(2, 3),
    "time": 0.1,
    "no_integers": np.zeros(0, np.int64),
    "no_floats": np.zeros(0, np.float32),
}


def _fill(example, values):
    for name, value in values.items():
        feature = example.features.feature[name]
        items = value if isinstance(value, list) else [value]
        if isinstance(items[0], bytes | str):
            feature.bytes_list.value.extend(item if isinstance(item, bytes) else item.encode() for item in items)
            continue
        array = np.ravel(value)
        kind = feature.float_list if array.dtype.kind == "f" else feature.int64_list
        kind.SetInParent()
        kind.value.extend(array.tolist())
    return example


def test_bytes_are_those_of_protobufs_deterministic_serialisation():
    expected = _fill(_protobuf_example()(), VALUES).SerializeToString(deterministic=True)
    assert encode_example(VALUES) == expected


def test_order_of_the_mapping_does_not_matter():
    assert encode_example(dict(reversed(VALUES.items()))) == encode_example(VALUES)


def test_protobuf_reads_what_we_write_and_we_read_what_protobuf_writes():
    message = _protobuf_example()()
    message.ParseFromString(encode_example(VALUES))
    assert list(message.features.feature["extremes"].int64_list.value) == VALUES["extremes"].tolist()
    assert message.features.feature["name"].bytes_list.value[0].decode() == VALUES["name"]

    found = decode_example(message.SerializeToString())
    assert set(found) == set(VALUES)
    assert found["image"] == [VALUES["image"]]
    assert found["tags"] == [b"a", b"", b"c"]
    assert found["time"].dtype == np.float32
    assert found["frame"].dtype == np.int64
    for name in ("extremes", "box", "grid", "no_integers", "no_floats"):
        np.testing.assert_array_equal(found[name], np.ravel(VALUES[name]))


def test_one_feature_alone_equals_the_same_of_all():
    data = encode_example(VALUES)
    assert decode_example(data, only="name") == {"name": ["Zoë 李".encode()]}
    assert decode_example(data, only="absent") == {}


def test_numbers_that_are_not_packed_are_read():
    def field(number, payload):
        return bytes([number << 3 | 2, len(payload)]) + payload

    integers = field(3, b"\x08\x05\x08\xac\x02")  # 5, then 300 in two bytes
    floats = field(2, b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2.0)))
    entries = [
        field(1, field(1, name) + field(2, value)) for name, value in ((b"floats", floats), (b"integers", integers))
    ]
    found = decode_example(field(1, b"".join(entries)))
    assert found["integers"].tolist() == [5, 300]
    assert found["floats"].tolist() == [1.5, -2.0]


def test_fields_of_later_versions_are_skipped():
    unknown = b"\x78\x01" + b"\x7d" + bytes(4) + b"\x79" + bytes(8)  # field 15 as varint, 32 and 64 bits
    assert decode_example(encode_example({"frame": 3}) + unknown)["frame"].tolist() == [3]


@pytest.mark.parametrize("stop", [1, 5, 12, -1])
def test_a_message_cut_short_is_refused(stop):
    with pytest.raises(InputError, match=re.escape("not a tf.train.Example")):
        decode_example(encode_example(VALUES)[:stop])


def test_no_bytes_make_anything_but_an_input_error():
    random = np.random.default_rng(0)
    whole = np.frombuffer(encode_example(VALUES), np.uint8)
    refused = 0
    for _ in range(500):
        damaged = whole.copy()
        damaged[random.integers(whole.size, size=3)] = random.integers(256, size=3)
        try:
            decode_example(damaged.tobytes())
        except InputError:
            refused += 1
    assert refused > 50


def test_numbers_an_int64_cannot_hold_are_refused():
    with pytest.raises(TypeError):
        encode_example({"frame": np.asarray([1], np.uint64)})
