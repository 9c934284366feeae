"""Renders beside frames: record by record, in manifest, check and TFDS metadata."""

import dataclasses
import json
import logging
import os

import numpy as np
import pytest

from asccl_jax.data import records
from asccl_jax.data.aligned_frames import RecordClips
from asccl_jax.data.dataset import begin_dataset, finish_dataset, verify_dataset, write_frame_shard, write_render_shard
from asccl_jax.data.manifest import Manifest, read_manifest
from asccl_jax.errors import InputError
from tests.data.painted_clips import write_records
from tests.data.tiny_dataset import frame_records, render_record

CLIPS = {"A/neutral/s1": (0, 1, 3), "A/unlabelled/s2": (0, 2)}


def dataset(tmp_path, renders):
    directory = begin_dataset(tmp_path / "data")
    entry = write_frame_shard(directory, "train", 0, 1, frame_records(CLIPS))
    shard = write_render_shard(directory, "train", 0, 1, renders)
    finish_dataset(directory, name="tiny", shards=[entry], renders={"train": [shard]})
    return directory


def all_renders(**change):
    records = [render_record(clip, frame) for clip, frames in CLIPS.items() for frame in frames]
    return [dataclasses.replace(record, **change) for record in records]


def test_renders_go_with_frames_and_are_verified(tmp_path):
    directory = dataset(tmp_path, all_renders())
    assert verify_dataset(directory) == []
    assert read_manifest(directory).splits["train"].records("renders") == 5


def test_tfds_is_not_told_of_pictures_that_were_not_drawn(tmp_path):
    directory = dataset(tmp_path, all_renders())
    features = json.loads((directory / "renders" / "features.json").read_text())["featuresDict"]["features"]
    assert "detail_image" not in features and "aligned_detail_image" not in features
    assert features["nmfc_image"]["image"] == {
        "shape": {"dimensions": ["224", "224", "3"]},
        "dtype": "uint8",
        "encodingFormat": "png",
    }


def test_a_render_too_few_is_refused(tmp_path):
    with pytest.raises(InputError, match="record by record"):
        dataset(tmp_path, all_renders()[:-1])


def test_a_render_of_another_frame_is_found(tmp_path):
    directory = dataset(tmp_path, all_renders(frame=9))
    (problem,) = verify_dataset(directory)
    assert "the clip table says" in problem


def test_some_with_wrinkles_and_some_without_are_refused(tmp_path):
    mixed = [*all_renders()[:-1], render_record("A/unlabelled/s2", 2, detail=True)]
    with pytest.raises(InputError, match="detail_image"):
        dataset(tmp_path, mixed)


def test_flags_that_are_not_those_of_the_clip_table_are_found(tmp_path):
    directory = dataset(tmp_path, all_renders(flags=4))
    assert read_manifest(directory).clips["A/neutral/s1"].flags == ((4, 3),)
    edit_clips(directory, lambda clip: clip.update(flags=[[0, sum(count for _, count in clip["flags"])]]))
    (problem,) = verify_dataset(directory)
    assert "has flags 4, the clip table says 0" in problem


def edit_clips(directory, change):
    fields = json.loads((directory / "manifest.json").read_text())
    for clip in fields["clips"].values():
        change(clip)
    (directory / "manifest.json").write_text(json.dumps(fields))


@pytest.fixture
def read_bytes(monkeypatch):
    """Numbers of bytes that have been read of records so far."""
    counts, pread = [], os.pread

    def counting(descriptor, size, offset):
        counts.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(records.os, "pread", counting)
    return counts


MIXED = {"A/neutral/s1": {frame: {"flags": 4 * (frame in (2, 3))} for frame in range(6)}, "A/happy/s1": {0: {}, 2: {}}}
USABLE = {"A/neutral/s1": ((0, 1), (4, 5)), "A/happy/s1": ((0, 0), (2, 2))}


def usable(directory):
    return {name: clip.runs for name, clip in RecordClips(directory).clips.items()}


def test_opening_renders_reads_one_of_them_however_many_there_are(tmp_path, read_bytes):
    directory = write_records(tmp_path / "r", MIXED)
    largest = max(np.diff(records.read_offsets(directory / "renders" / "asccl_renders-train.tfrecord-00000-of-00001")))
    read_bytes.clear()
    assert usable(directory) == USABLE
    assert sum(read_bytes) <= largest


@pytest.mark.parametrize("writable", [True, False])
def test_flags_that_an_older_manifest_does_not_tell_are_read_once(tmp_path, read_bytes, writable, caplog):
    directory = write_records(tmp_path / "r", MIXED)
    edit_clips(directory, lambda clip: clip.pop("flags"))
    if not writable:
        (directory / "renders" / "train-flags.json").mkdir()
    counts = []
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            read_bytes.clear()
            assert usable(directory) == USABLE
            counts.append(len(read_bytes))
    assert counts == ([9, 1] if writable else [9, 9])
    assert ("cannot be written" in caplog.text) is not writable
    write_records(directory, {"A/neutral/s1": {0: {}, 1: {"flags": 1}}})  # other records in its place
    edit_clips(directory, lambda clip: clip.pop("flags"))
    assert usable(directory) == {"A/neutral/s1": ((0, 0),)}


def test_manifests_from_before_renders_are_read(tmp_path):
    text = read_manifest(dataset(tmp_path, all_renders())).to_json()
    fields = json.loads(text)
    del fields["splits"]["train"]["renders"]
    assert Manifest.from_json(json.dumps(fields)).splits["train"].renders == ()
