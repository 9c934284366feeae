import dataclasses
import json

import numpy as np
import pytest
import simplejpeg

from asccl_jax.data.__main__ import main
from asccl_jax.data.dataset import (
    begin_dataset,
    describe_dataset,
    extend_dataset,
    finish_dataset,
    open_records,
    read_comparisons,
    read_frame_shard,
    read_pairs,
    verify_dataset,
    write_frame_shard,
)
from asccl_jax.data.frames import FrameStore
from asccl_jax.data.manifest import FrameIndex, read_manifest
from asccl_jax.data.records import RecordWriter
from asccl_jax.errors import InputError
from tests.data.tiny_dataset import (
    SIZE,
    clip_pair,
    colour,
    comparison,
    frame_record,
    frame_records,
    write_tiny_dataset,
)


def _edit_manifest(directory, change):
    path = directory / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_writing_again_gives_the_same_bytes(pristine, tmp_path):
    write_tiny_dataset(tmp_path)
    files = {path.relative_to(pristine): path.read_bytes() for path in pristine.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_frames_are_found_by_clip_and_position(pristine):
    for split in ("train", "validation"):
        store = FrameStore(pristine, split)
        for clip, entry in store.index.clips.items():
            for frame in entry.positions().tolist():
                record = store.record(clip, frame)
                assert (record.clip, record.frame) == (clip, frame)
        assert len(store) == sum(clip.frame_count for clip in store.index.clips.values())


def test_index_equals_a_search_through_all_records(pristine):
    manifest = read_manifest(pristine)
    index = FrameIndex(manifest, "validation")
    store = FrameStore(pristine, "validation")
    order = {(store[number].clip, store[number].frame): number for number in range(len(store))}
    frames = np.arange(-2, 15)
    for clip in ("Zoë 李/neutral/s1", "Zoë 李/sad/s1", "unknown"):
        expected = [order.get((clip, frame), -1) for frame in frames.tolist()]
        assert index.records(clip, frames).tolist() == expected
    assert index.all_records("Zoë 李/sad/s1").tolist() == [
        order["Zoë 李/sad/s1", k] for k in (0, 1, 2, 3, 4, 8, 9, 10, 11)
    ]


def test_a_dropped_frame_and_an_unknown_clip_are_named(pristine):
    store = FrameStore(pristine, "validation")
    with pytest.raises(InputError, match="clip 'Zoë 李/sad/s1' has no frame 6"):
        store.image("Zoë 李/sad/s1", 6)
    with pytest.raises(InputError, match="split 'validation' has no clip 'A/happy/s1'"):
        store.record("A/happy/s1", 0)
    with pytest.raises(InputError, match="no split 'test'; it has train, validation"):
        FrameStore(pristine, "test")


def test_images_are_decoded_as_rgb(pristine):
    wanted = [("A/happy/s1", 11), ("B/neutral/s2", 0), ("A/neutral/s1", 4)]
    images = FrameStore(pristine, "train").images(wanted)
    assert images.shape == (3, SIZE, SIZE, 3)
    for image, frame in zip(images, wanted, strict=True):
        # JPEG at quality 95 keeps a flat colour within two levels: one of quantisation, one of colour conversion.
        np.testing.assert_allclose(image.astype(int), np.broadcast_to(colour(*frame), image.shape), atol=2)


def test_pairs_come_back(pristine):
    assert [(pair.query_clip, len(pair.query_frame)) for pair in read_pairs(pristine, "train")] == [
        ("A/neutral/s1", 12),
        ("A/neutral/s2", 10),
        ("B/neutral/s1", 9),
        ("B/neutral/s2", 6),
    ]


def test_a_shard_read_back_equals_what_its_writer_returned(dataset):
    written = write_frame_shard(dataset, "train", 0, 2, frame_records({"A/happy/s1": [0, 1, 4], "A/neutral/s1": [2]}))
    assert read_frame_shard(dataset, "train", 0, 2) == written
    assert read_frame_shard(dataset, "train", 0, 3) is None


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([("A/happy/s1", 0), ("A/neutral/s1", 0), ("A/happy/s1", 1)], "clip 'A/happy/s1': expected .* frames together"),
        ([("A/happy/s1", 3), ("A/happy/s1", 3)], "frame 3 after frame 3"),
        ([("A/bored/s1", 0)], "emotion 'bored', expected one of neutral, angry"),
    ],
)
def test_frames_out_of_order_or_unlabelled_are_refused(tmp_path, frames, message):
    with pytest.raises(InputError, match=message):
        write_frame_shard(tmp_path, "train", 0, 1, (frame_record(*frame) for frame in frames))
    assert not list(tmp_path.iterdir())


def test_images_that_are_not_square_jpegs_of_one_size_are_refused(tmp_path):
    good = frame_record("A/happy/s1", 0)
    wide = simplejpeg.encode_jpeg(np.zeros((8, 16, 3), np.uint8))
    grey = simplejpeg.encode_jpeg(np.zeros((16, 16, 1), np.uint8), colorspace="GRAY", colorsubsampling="Gray")
    small = frame_record("A/happy/s1", 1, size=8).image
    for image, message in ((b"GIF89a", "no JPEG"), (wide, "16 x 8"), (grey, "Gray"), (small, "8 pixels wide")):
        with pytest.raises(InputError, match=f"clip 'A/happy/s1', frame 1: .*{message}"):
            write_frame_shard(tmp_path, "train", 0, 1, [good, dataclasses.replace(good, image=image, frame=1)])


def test_finishing_needs_every_shard_once(tmp_path):
    shards = [write_frame_shard(tmp_path, "train", k, 2, frame_records({f"A/happy/s{k}": [0]})) for k in range(2)]
    for wrong in (shards[:1], [*shards, shards[0]]):
        with pytest.raises(InputError, match=r"(has frame shards|lies in two shards)"):
            finish_dataset(tmp_path, name="tiny", shards=wrong)
    with pytest.raises(InputError, match="no frames for data set 'tiny'"):
        finish_dataset(tmp_path, name="tiny", shards=[])
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (clip_pair("A/neutral/s1", "A/sad/s1", [(0, 0)]), "'A/sad/s1' is not in split 'train'"),
        (clip_pair("A/neutral/s1", "A/happy/s2", [(0, 0)]), "sentence or emotion differ"),
        (clip_pair("A/neutral/s1", "A/happy/s1", [(1, 0), (0, 1)]), "goes back in time"),
    ],
)
def test_a_pair_that_does_not_fit_its_clips_is_refused(tmp_path, pair, message):
    clips = {"A/neutral/s1": range(3), "A/happy/s1": range(3), "A/happy/s2": range(3)}
    with pytest.raises(InputError, match=message):
        write_tiny_dataset(tmp_path, shards={"train": [clips]}, pairs={"train": [pair]})
    assert not (tmp_path / "manifest.json").exists()


def test_a_new_preparation_leaves_nothing_of_the_old_one(dataset):
    (dataset / ".asccl_frames-train.tfrecord-00000-of-00002.0.partial").touch()
    write_tiny_dataset(dataset, shards={"train": [{"C/happy/s1": range(3)}]})
    assert sorted(path.name for path in dataset.iterdir() if path.is_file()) == [
        "asccl_frames-train.tfrecord-00000-of-00001",
        "asccl_frames-train.tfrecord-00000-of-00001.index",
        "dataset_info.json",
        "features.json",
        "manifest.json",
    ]
    assert not list((dataset / "pairs").glob("*.tfrecord*"))
    assert verify_dataset(dataset) == []


def test_a_killed_preparation_leaves_no_data_set(dataset):
    begin_dataset(dataset)
    write_frame_shard(dataset, "train", 0, 1, frame_records({"A/happy/s1": [0]}))
    with pytest.raises(InputError, match=r"has no manifest\.json: not a finished data set"):
        read_manifest(dataset)


def test_extending_adds_a_split_of_comparisons_and_can_be_repeated(dataset):
    for group in range(2):
        clips = {f"Zoë 李/{emotion}/cmp-{group}": [0] for emotion in ("neutral", "happy")}
        compared = [comparison(*(((clip), 0) for clip in clips), group=group)]
        extend_dataset(dataset, "comparisons", frame_records(clips), compared)
    manifest = read_manifest(dataset)
    assert manifest.split("comparisons").records("frames") == 2
    (found,) = read_comparisons(dataset, "comparisons")
    assert (found.group, found.condition, found.speech_distance) == (1, "matched", 0.25)
    assert FrameStore(dataset, "comparisons").image(found.key_clip, found.key_frame).shape == (SIZE, SIZE, 3)
    assert len(read_pairs(dataset, "train")) == 4
    assert verify_dataset(dataset) == []


@pytest.mark.parametrize(
    ("split", "clips", "compared", "message"),
    [
        ("train", {}, [], "split 'train' .* holds clip pairs"),
        ("comparisons", {"A/happy/s1": [0]}, [], "'A/happy/s1' is already in split 'train'"),
        ("comparisons", {"A/happy/x": [0]}, [comparison(("A/happy/x", 0), ("A/happy/x", 1))], "no frame 1"),
        ("comparisons", {"A/happy/x": [0]}, [comparison(("A/happy/x", 0), ("A/happy/x", 0), condition="odd")], "'odd'"),
        ("no/split", {"A/happy/x": [0]}, [], "split name 'no/split'"),
    ],
)
def test_an_extension_that_does_not_fit_leaves_the_data_set_as_it_was(dataset, split, clips, compared, message):
    before = read_manifest(dataset)
    with pytest.raises(InputError, match=message):
        extend_dataset(dataset, split, frame_records(clips), compared)
    assert read_manifest(dataset) == before
    assert verify_dataset(dataset) == []


def test_a_wrong_record_count_is_refused(dataset):
    name = "asccl_pairs-train.tfrecord-00000-of-00001"
    with RecordWriter(dataset / "pairs" / name) as writer:
        writer.write(clip_pair("A/neutral/s1", "A/happy/s1", [(0, 0)]).encode())
    with pytest.raises(InputError, match=f"{name} has 1 records, the manifest says 4"):
        open_records(dataset, read_manifest(dataset), "train", "pairs")


def test_verification_finds_every_kind_of_damage(dataset):
    assert verify_dataset(dataset) == []
    shard = dataset / "asccl_frames-train.tfrecord-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    pair_shard = dataset / "pairs" / "asccl_pairs-validation.tfrecord-00000-of-00001"
    with RecordWriter(pair_shard) as writer:  # sound, but not what the manifest was made of
        writer.write(clip_pair("Zoë 李/neutral/s1", "Zoë 李/sad/s1", [(0, 0)]).encode())
    problems = verify_dataset(dataset)
    assert len(problems) == 2
    assert f"{shard}: record" in problems[0]
    assert "corrupt" in problems[0]
    assert f"{pair_shard}: its SHA-256" in problems[1]


def test_verification_compares_frames_with_the_clip_table(dataset):
    def swap(fields):
        first, second = (fields["clips"][f"A/{emotion}/s1"] for emotion in ("neutral", "happy"))
        first["first_record"], second["first_record"] = second["first_record"], first["first_record"]

    _edit_manifest(dataset, swap)
    (problem,) = verify_dataset(dataset)
    assert "record 0: frame 0 of 'A/neutral/s1', the clip table says 0 of 'A/happy/s1'" in problem


def test_verification_decodes_every_image(dataset):
    frames = list(frame_records({"A/happy/s1": range(3)}))
    broken = dataclasses.replace(frames[1], image=frames[1].image[:-4])
    entry = write_frame_shard(dataset, "train", 0, 1, [frames[0], broken, frames[2]])
    finish_dataset(dataset, name="tiny", shards=[entry])
    (problem,) = verify_dataset(dataset)
    assert "record 1: its image does not decode" in problem
    with pytest.raises(InputError, match="record 1: no readable image"):
        FrameStore(dataset, "train").image("A/happy/s1", 1)


def test_the_command_prints_a_table_and_verifies(pristine, capsys):
    assert main([str(pristine)]) == 0
    table, verdict = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert table.splitlines()[0] == f"tiny: {SIZE} x {SIZE} pixels"
    assert table.splitlines()[2].split()[:6] == ["train", "2", "8", "96", "4", "37"]
    assert verdict == "every checksum and image is sound"
    assert describe_dataset(pristine).strip() == table


def test_the_command_fails_on_damage_and_on_bad_input(dataset, tmp_path, capsys):
    shard = dataset / "asccl_frames-validation.tfrecord-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-3])
    assert main([str(dataset)]) == 1
    assert f"damaged: {shard}: truncated in record 20" in capsys.readouterr().out
    assert main([str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.startswith("error: data directory")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
