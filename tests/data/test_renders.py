"""Renders beside frames: record by record, in manifest, check and TFDS metadata."""

import dataclasses
import json

import pytest

from asccl_jax.data.dataset_reader import verify_dataset
from asccl_jax.data.dataset_writer import begin_dataset, finish_dataset, write_frame_shard, write_render_shard
from asccl_jax.data.manifest import Manifest, read_manifest
from asccl_jax.errors import InputError
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


def test_manifests_from_before_renders_are_read(tmp_path):
    text = read_manifest(dataset(tmp_path, all_renders())).to_json()
    fields = json.loads(text)
    del fields["splits"]["train"]["renders"]
    assert Manifest.from_json(json.dumps(fields)).splits["train"].renders == ()
