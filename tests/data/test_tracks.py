import json
import shutil

import numpy as np
import pytest

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.manifest import read_manifest
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import (
    LIST_NAME,
    NO_LABEL,
    TrackEntry,
    clip_file_name,
    codes_path,
    coefficients_of,
    read_track_list,
    read_tracks,
    read_truth,
    template_frame,
    truth_path,
)
from asccl_jax.errors import InputError
from tests.data.tiny_tracks import codes, write_tracks


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "tracks"
    write_tracks(
        directory,
        {"a/sad/s1": codes(range(4)), "held/neutral/s2": codes([3, 5, 6], first=9), "b/unlabelled/x": codes([0])},
    )
    return directory


def test_column_0_is_the_jaw_and_an_edit_takes_the_columns_back():
    made = codes([0, 1])
    assert coefficients_of(made).dtype == np.float32
    np.testing.assert_array_equal(coefficients_of(made)[:, 0], made.pose[:, 3])
    np.testing.assert_array_equal(coefficients_of(made)[:, 1:], made.exp)
    values = coefficients_of(made) + 1
    np.testing.assert_array_equal(coefficients_of(made.edited(values[:, 1:], values[:, 0])), values)


def test_tracks_come_in_the_order_of_their_ids_with_what_the_list_says(directory):
    tracks = read_tracks(directory)
    assert [track.clip for track in tracks] == ["a/sad/s1", "b/unlabelled/x", "held/neutral/s2"]
    assert [track.split for track in tracks] == ["train", "train", "validation"]
    assert [set(track.labels.tolist()) for track in tracks] == [{EMOTIONS.index("sad")}, {NO_LABEL}, {0}]
    assert tracks[2].frame_index.tolist() == [3, 5, 6]
    np.testing.assert_array_equal(tracks[2].coefficients, coefficients_of(codes([3, 5, 6], first=9)))
    assert [track.clip for track in read_tracks(directory, split="validation")] == ["held/neutral/s2"]


def test_runs_of_emotions_label_the_frames_one_by_one(tmp_path):
    runs = (("happy", 2), ("unlabelled", 1), ("sad", 1))
    write_tracks(tmp_path / "tracks", {"a/happy/s": codes(range(4))}, frame_emotions=runs)
    (track,) = read_tracks(tmp_path / "tracks")
    assert track.emotion == "happy"
    assert track.labels.tolist() == [4, 4, NO_LABEL, 5]


def test_frames_without_a_face_are_left_out(directory):
    (directory / "tracks").mkdir()
    flags = np.array([0, 1, 4, 8], np.uint8)  # trusted, no face found, fitted poorly, unreadable
    np.savez(directory / "tracks" / f"{clip_file_name('a/sad/s1')}.npz", flags=flags)
    track = read_tracks(directory)[0]
    assert track.frame_index.tolist() == [0, 2]
    assert len(track.labels) == len(track.coefficients) == 2


def flag(directory, clip, flags):
    (directory / "tracks").mkdir(exist_ok=True)
    np.savez(directory / "tracks" / f"{clip_file_name(clip)}.npz", flags=np.array(flags, np.uint8))


def test_the_template_is_the_first_frame_that_nothing_is_wrong_with(tmp_path):
    clips = {"a/sad/1": 1, "b/neutral/1": 2, "c/neutral/1": 3}
    write_tracks(tmp_path, {name: codes(range(4), first=10 * first) for name, first in clips.items()})

    def chosen(tracks):
        return float(template_frame(tmp_path, tracks).pose[0, 3])

    tracks = read_tracks(tmp_path)
    assert chosen(tracks) == chosen(tracks[::-1]) == 20.0
    flag(tmp_path, "b/neutral/1", [1, 4, 0, 0])  # no face, a poor fit
    assert chosen(tracks) == 22.0
    flag(tmp_path, "b/neutral/1", [8, 2, 4, 1])
    assert chosen(tracks) == 30.0
    flag(tmp_path, "c/neutral/1", [4] * 4)
    assert chosen(tracks) == 10.0
    flag(tmp_path, "a/sad/1", [1] * 4)
    with pytest.raises(InputError, match="every frame of 3 clips to train on is flagged"):
        chosen(tracks)


def test_a_reconstruction_is_read_without_its_shards(dataset):
    manifest = read_manifest(dataset)
    (dataset / "codes").mkdir()
    for name, clip in manifest.clips.items():
        codes(clip.positions()).save(codes_path(dataset, name))
    for shard in dataset.glob("*.tfrecord*"):
        shard.unlink()
    tracks = read_tracks(dataset)
    assert [track.clip for track in tracks] == sorted(n for n, c in manifest.clips.items() if c.split != "comparisons")
    for track in tracks:
        clip = manifest.clips[track.clip]
        assert (track.speaker, track.emotion, track.split) == (clip.speaker, clip.emotion, clip.split)
        np.testing.assert_array_equal(track.frame_index, clip.positions())


def test_a_directory_that_holds_no_tracks_says_how_to_make_them(tmp_path, dataset):
    with pytest.raises(InputError, match="does not exist; make tracks with `asccl data reconstruct`"):
        read_tracks(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither tracks.json nor manifest.json"):
        read_tracks(tmp_path / "empty")
    with pytest.raises(InputError, match="no codes/: its clips were never reconstructed"):
        read_tracks(dataset)


def test_damage_is_told_with_the_clip(directory):
    path = codes_path(directory, "a/sad/s1")
    kept = path.read_bytes()
    codes(range(3)).save(path)
    with pytest.raises(InputError, match="'a/sad/s1': codes of 3 frames, the list says 4"):
        read_tracks(directory)
    path.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(InputError, match=r"'a/sad/s1': .*damaged"):
        read_tracks(directory)
    path.unlink()
    with pytest.raises(InputError, match=r"'a/sad/s1': .*no such file"):
        read_tracks(directory)
    made = codes(range(4))
    CodeDict(made.frame_index, made.shape, made.exp[:, :10], made.pose, made.cam).save(path)
    with pytest.raises(InputError, match="'a/sad/s1': 10 expression coefficients, expected DECA's 50"):
        read_tracks(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emotion": "bored"}, "clip 'a/sad/s1': emotion 'bored'"),
        ({"frames": -1}, "clip 'a/sad/s1': -1 frames"),
        ({"frame_emotions": [["sad", 3]]}, "emotions of 3 frames for 4 frames"),
        ({"colour": 1}, "no valid list of tracks"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(directory, change, message):
    content = json.loads((directory / LIST_NAME).read_text())
    content["clips"]["a/sad/s1"].update(change)
    (directory / LIST_NAME).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_track_list(directory)


def test_a_list_of_another_format_is_refused(directory):
    (directory / LIST_NAME).write_text('{"format": "asccl-tracks-9", "clips": {}}')
    with pytest.raises(InputError, match="'asccl-tracks-9', expected 'asccl-tracks-1'"):
        read_track_list(directory)
    (directory / LIST_NAME).write_text("{")
    with pytest.raises(InputError, match="no valid list of tracks"):
        read_track_list(directory)


def test_a_list_read_back_is_the_one_written(tmp_path):
    write_tracks(tmp_path / "t", {"a/sad/s1": codes(range(3))}, frame_emotions=(("sad", 2), ("happy", 1)))
    assert dict(read_track_list(tmp_path / "t").clips) == {
        "a/sad/s1": TrackEntry("a", "sad", "s1", "train", 3, (("sad", 2), ("happy", 1)))
    }


def test_truth_is_given_at_any_intensity_with_the_source_as_neutral(directory):
    clip = "held/neutral/s2"
    for number, emotion in enumerate(EMOTIONS[1:]):
        truth_path(directory, clip, emotion).parent.mkdir(parents=True)
        codes([3, 5, 6], first=10 + number).save(truth_path(directory, clip, emotion))
    (delivery,) = read_truth(directory, intensity=0.5)
    assert (delivery.clip, delivery.speaker, len(delivery.codes)) == (clip, "held", 3)
    np.testing.assert_array_equal(delivery.source, coefficients_of(delivery.codes))
    assert tuple(delivery.truth) == EMOTIONS
    np.testing.assert_array_equal(delivery.truth["neutral"], delivery.source)
    for number, emotion in enumerate(EMOTIONS[1:]):
        # Numbers below 20 in float32: rounded by at most 2e-6.
        np.testing.assert_allclose(delivery.truth[emotion], delivery.source + (1 + number) / 2, rtol=0, atol=4e-6)

    codes([3, 5, 7]).save(truth_path(directory, clip, "sad"))
    with pytest.raises(InputError, match="its truth for 'sad' is of other frames"):
        read_truth(directory)
    shutil.rmtree(directory / "truth")
    with pytest.raises(InputError, match="no truth of held-out neutral clips"):
        read_truth(directory)
