import dataclasses

import numpy as np
import pytest

from asccl_jax.data.records import decode_example, encode_example
from asccl_jax.data.schema import RECORD_TYPES, ClipPairRecord, FrameRecord
from asccl_jax.errors import InputError
from tests.data.tiny_dataset import clip_pair, comparison, frame_record, render_record

RECORDS = {
    "frames": frame_record("Zoë 李/happy/s1", 3),
    "renders": render_record("A/neutral/s1", 3),
    "pairs": clip_pair("A/neutral/s1", "A/sad/s1", [(0, 0), (1, 0), (2, 1)]),
    "comparisons": comparison(("A/neutral/s1", 3), ("A/sad/s1", 4)),
}


@pytest.mark.parametrize("kind", RECORD_TYPES)
def test_a_record_comes_back_as_it_was(kind):
    record = RECORDS[kind]
    found = RECORD_TYPES[kind].decode(record.encode())
    for field in dataclasses.fields(record):
        expected = getattr(record, field.name)
        if isinstance(expected, float):
            expected = float(np.float32(expected))  # as stored
        np.testing.assert_array_equal(getattr(found, field.name), expected)
        assert type(getattr(found, field.name)) is type(expected)


def test_equal_records_have_equal_bytes():
    assert frame_record("A/neutral/s1", 3).encode() == frame_record("A/neutral/s1", 3).encode()
    assert frame_record("A/neutral/s1", 3).encode() != frame_record("A/neutral/s1", 4).encode()


def test_one_field_alone_equals_that_of_the_record():
    data = RECORDS["frames"].encode()
    assert FrameRecord.decode_field(data, "image") == RECORDS["frames"].image
    np.testing.assert_array_equal(FrameRecord.decode_field(data, "landmarks"), RECORDS["frames"].landmarks)


def test_a_path_of_no_frames_is_a_path():
    found = ClipPairRecord.decode(clip_pair("A/neutral/s1", "A/sad/s1", []).encode())
    assert found.query_frame.shape == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "frame record without 'image'"),
        ({"frame": 0.5}, "field 'frame': expected ints"),
        ({"speaker": 3}, "field 'speaker'"),
        ({"speaker": b"\xff"}, "field 'speaker'"),
        ({"landmarks": np.zeros(100, np.float32)}, "field 'landmarks'"),
        ({"crop_box": ["text"]}, "field 'crop_box'"),
    ],
)
def test_a_foreign_record_is_refused_by_field(values, message):
    data = decode_example(RECORDS["frames"].encode()) | values if values else {}
    with pytest.raises(InputError, match=message):
        FrameRecord.decode(encode_example(data))


def test_a_wrong_shape_or_type_is_not_written():
    good = vars(RECORDS["pairs"])
    paths = {"query_frame": np.zeros((3, 1), np.int64)}, {"query_frame": np.zeros(3)}
    for fields in paths:
        record = object.__new__(ClipPairRecord)  # past the run-time types, which production does not check
        vars(record).update(good, **fields)
        with pytest.raises(InputError, match=r"clip pair record, field 'query_frame': (int64|float64) of shape"):
            record.encode()
