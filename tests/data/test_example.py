import re
import struct

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from asccl_jax.data.example import decode_example, encode_example
from asccl_jax.errors import InputError


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
