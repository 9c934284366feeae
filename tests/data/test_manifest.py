import dataclasses
import itertools
import json
from itertools import pairwise

import pytest

from asccl_jax.data.manifest import Manifest, evenly_spaced, read_manifest, write_manifest
from asccl_jax.errors import InputError
from tests.data.tiny_dataset import SIZE


def _edit_manifest(directory, change):
    path = directory / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_manifest_comes_back_as_it_was(pristine):
    manifest = read_manifest(pristine)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.speakers("validation") == ["Zoë 李"]
    assert manifest.clips["Zoë 李/sad/s1"].frames == ((0, 4), (8, 11))
    assert manifest.clips["Zoë 李/sad/s1"].fps == 25.0
    assert manifest.image_size == SIZE
    assert [shard.records for shard in manifest.splits["train"].frames] == [48, 48]


def test_a_missing_directory_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"absent does not exist; .*asccl prepare.*python -m data_prep"):
        read_manifest(tmp_path / "absent")


def test_another_schema_version_is_refused(dataset):
    _edit_manifest(dataset, lambda fields: fields.update(schema_version=2))
    with pytest.raises(InputError, match=r"manifest\.json: schema version 2, this program reads 1"):
        read_manifest(dataset)


def test_missing_shards_are_listed(dataset):
    (dataset / "asccl_frames-train.tfrecord-00001-of-00002").unlink()
    (dataset / "pairs" / "asccl_pairs-train.tfrecord-00000-of-00001").unlink()
    with pytest.raises(InputError, match=r"2 of its shards are missing: asccl_frames-train.*, pairs/asccl_pairs"):
        read_manifest(dataset)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "pairs/../../outside", "..", "other"])
def test_a_hostile_shard_name_is_refused(dataset, name):
    (dataset.parent / "outside").touch()
    _edit_manifest(dataset, lambda fields: fields["splits"]["train"]["frames"][0].update(name=name))
    with pytest.raises(InputError, match=r"shard name .*: expected 'asccl_frames-train\.tfrecord-00000-of-00002'"):
        read_manifest(dataset)


@pytest.mark.parametrize("split", ["../train", "a/b", "", "Train"])
def test_a_hostile_split_name_is_refused(dataset, split):
    _edit_manifest(dataset, lambda fields: fields["splits"].update({split: fields["splits"]["train"]}))
    with pytest.raises(InputError, match="split name"):
        read_manifest(dataset)


def _first_clip(fields):
    return fields["clips"]["A/neutral/s1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.pop("schema_version"), "KeyError: 'schema_version'"),
        (lambda fields: fields.pop("image_size"), "image_size"),
        (lambda fields: fields.update(image_size=0), "image_size 0"),
        (lambda fields: fields.update(surprise=1), "surprise"),
        (lambda fields: fields.update(splits=[]), "no valid manifest"),
        (lambda fields: fields["splits"]["train"]["frames"][0].update(records=47), "47 records, its clips have 48"),
        (lambda fields: fields["splits"]["train"]["frames"][0].update(records=-1), "-1 records"),
        (lambda fields: _first_clip(fields).update(emotion="bored"), "emotion 'bored'"),
        (lambda fields: _first_clip(fields).update(shard=2), "shard 2 of split 'train'"),
        (lambda fields: _first_clip(fields).update(shard="0"), "no valid manifest"),
        (lambda fields: _first_clip(fields).update(split="test"), "no split 'test'"),
        (lambda fields: _first_clip(fields).update(first_record=1), "starts at record 1"),
        (lambda fields: _first_clip(fields).update(frames=[[0, 5], [5, 10]]), "rising order"),
        (lambda fields: _first_clip(fields).update(frames=[[11, 0]]), "rising order"),
        (lambda fields: _first_clip(fields).update(flags=[[0, 3]]), "flags of 3 frames for"),
        (lambda fields: _first_clip(fields).update(frames=[[0, 10**15]]), "expected 1000000000000001"),
    ],
)
def test_a_damaged_manifest_is_named_with_its_fault(dataset, change, message):
    _edit_manifest(dataset, change)
    with pytest.raises(InputError, match=rf"manifest\.json: .*{message}"):
        read_manifest(dataset)


def test_a_manifest_cut_short_is_refused(dataset):
    path = dataset / "manifest.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="no valid manifest"):
        read_manifest(dataset)


def test_a_manifest_that_could_not_be_read_is_not_written(dataset):
    manifest = read_manifest(dataset)
    with pytest.raises(InputError, match="image_size 0"):
        write_manifest(dataset, dataclasses.replace(manifest, image_size=0))
    assert read_manifest(dataset) == manifest


def test_shards_of_a_split_follow_each_other_in_the_clip_table(pristine):
    manifest = read_manifest(pristine)
    clips = sorted(
        (clip.shard, clip.first_record, clip.frame_count) for clip in manifest.clips.values() if clip.split == "train"
    )
    assert all(b[1] == a[1] + a[2] for a, b in pairwise(clips) if a[0] == b[0])


@pytest.mark.parametrize("count", [2, 3, 7, 10, 100, 1001])
def test_evenly_spaced_keeps_both_ends_repeats_nothing_and_leaves_equal_gaps(count):
    for limit in range(2, min(count, 60) + 1):
        chosen = evenly_spaced(range(count), limit)
        assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, limit)
        gaps = {after - before for before, after in itertools.pairwise(chosen)}
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1


def test_a_limit_that_does_not_bind_keeps_all():
    for limit in (3, 8, None):
        assert evenly_spaced("abc", limit) == ["a", "b", "c"]
    assert evenly_spaced([], 4) == evenly_spaced("abc", 0) == []
