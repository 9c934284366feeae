"""Aligned frames: the same from records and from folders, at any size; what cannot be used is left out and named."""

import numpy as np
import pytest

from asccl_jax.data.aligned_frames import FolderClips, RecordClips, open_clips
from asccl_jax.errors import InputError
from asccl_jax.head.eyes import draw_eyes
from asccl_jax.image.face_box import landmark_box
from tests.data.painted_clips import STORED, PaintedClips, landmarks, picture, write_records, write_subject

CLIP = "A/neutral/s1"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    frames = {0: {}, 1: {}, 2: {"flags": 4}, 3: {"flags": 2}, 4: {}, 5: {"flags": 9}}
    clips = {CLIP: frames, "A/happy/s1": {0: {"flags": 1}}}
    return write_records(tmp_path_factory.mktemp("painted") / "records", clips)


def test_frames_of_records_are_what_was_stored(records):
    clips = RecordClips(records)
    frame = clips.read(CLIP, 4)
    np.testing.assert_allclose(frame.image.astype(int), picture(104), atol=2)  # a JPEG file
    np.testing.assert_array_equal(frame.nmfc_image, picture(24))
    np.testing.assert_array_equal(frame.shape_image, picture(64))
    assert frame.mouth_centre.tolist() == [127 + 4, 175]
    np.testing.assert_array_equal(frame.eye_points[:12], np.trunc(landmarks(4).astype(np.float32)[36:48]))
    np.testing.assert_array_equal(frame.eyes_image, draw_eyes(frame.eye_points, (STORED, STORED)))
    entry = clips.entry(CLIP)
    assert (entry.speaker, entry.emotion, entry.sentence, entry.split) == ("A", "neutral", "s1", "train")


def test_mask_is_the_face_of_the_head_that_was_drawn(records):
    face, head = (RecordClips(records, region=region).read(CLIP, 0).mask[:, :, 0] for region in ("face", "head"))
    assert set(np.unique(face)) == {0, 255}
    columns = np.flatnonzero(head.any(axis=0))
    assert (columns[0], columns[-1]) == (40, 215) and head[:, 40:216].all()
    assert not face[head == 0].any()
    assert face[110, 128] and face[214, 128] and not face[218, 128]  # down to the chin
    assert face[60, 128] and not face[45, 128]  # brows are at 90, a forehead of .3 of the 125 to the chin above them
    assert face[120, 70] and not face[120, 66]


def test_frames_not_to_trust_are_left_out_and_counted(records):
    clips = RecordClips(records)
    assert clips.clips[CLIP].runs == ((0, 1), (3, 4))
    np.testing.assert_array_equal(clips.clips[CLIP].frames, [0, 1, 3, 4])
    assert clips.left_out == {CLIP: 2, "A/happy/s1": 1} and "A/happy/s1" not in clips.clips
    assert RecordClips(records, untrusted=0).clips[CLIP].runs == ((0, 5),)
    assert RecordClips(records, untrusted=8).clips[CLIP].runs == ((0, 4),)


@pytest.mark.parametrize("size", [64, 256])
def test_boxes_are_those_of_the_landmarks_and_near_them_where_there_are_none(records, tmp_path, size):
    expected = landmark_box(landmarks(1)) * size / STORED
    from_records = RecordClips(records, image_size=size).read(CLIP, 1).face_box
    np.testing.assert_allclose(from_records, expected, rtol=1e-5)
    # The mask of the painted folders is no outline of a face: rows 60 to 199, columns 60 to 189.
    folders = FolderClips([write_subject(tmp_path / "Ann", {"": [1]})], image_size=size)
    brows = 110 - 0.2 * (199 - 110)
    painted = np.array([[60, brows], [189, 199]])
    np.testing.assert_allclose(folders.read("Ann", 1).face_box, landmark_box(painted) * size / STORED, atol=0.1)


@pytest.mark.parametrize("size", [64, 96])
def test_smaller_frames_are_averaged_and_their_points_stay_in_place(records, tmp_path, size):
    for clips, clip in (
        (RecordClips(records, image_size=size), CLIP),
        (FolderClips([write_subject(tmp_path / f"S{size}", {"": [1]})], image_size=size), f"S{size}"),
    ):
        frame = clips.read(clip, 1)
        assert frame.image.shape == frame.eyes_image.shape == (size, size, 3) and frame.mask.shape == (size, size, 1)
        expected = (landmarks(1)[48:].mean(axis=0) + 0.5) * size / STORED - 0.5
        assert np.abs(frame.mouth_centre - expected).max() < 1
        # A disc keeps its light, within rounding to 8 bits.
        large = draw_eyes(frame.eye_points, (STORED, STORED))[:, :, 0].mean()
        assert frame.eyes_image[:, :, 0].mean() == pytest.approx(large, rel=0.05) and large > 0.3
        rows, columns = np.nonzero(frame.eyes_image[:, :, 0] > 60)
        pupils = (frame.eye_points[12:] + 0.5) * size / STORED - 0.5
        assert np.abs(columns[columns < size // 2].mean() - pupils[0, 0]) < 0.6
        assert np.abs(rows.mean() - pupils[:, 1].mean()) < 0.6
        assert set(np.unique(frame.mask)) == {0, 255}


def test_frames_of_folders_are_what_was_stored(tmp_path):
    folder = write_subject(tmp_path / "Ann", {"000000": [0, 1, 2], "000001": [50, 51], "000002": [100]})
    clips = open_clips(folder)
    assert {clip: entry.split for clip, entry in clips.clips.items()} == {
        "Ann/000000": "train",
        "Ann/000001": "train",
        "Ann/000002": "validation",
    }
    frame = clips.read("Ann/000001", 51)
    np.testing.assert_array_equal(frame.nmfc_image, picture(71))
    np.testing.assert_array_equal(frame.image[100, 100], picture(151)[0, 0])
    assert not frame.image[0].any() and frame.mask[60:200, 60:190].all() and frame.mask.sum() == 140 * 130 * 255
    assert frame.mouth_centre.tolist() == [127 + 51, 175]
    np.testing.assert_array_equal(frame.eye_points[12:], [[149, 110], [209, 110]])


def test_a_flat_folder_is_one_clip_and_needs_no_mouth(tmp_path):
    write_subject(tmp_path / "Ann", {"": [3, 4, 7]}, mouth=False)
    write_subject(tmp_path / "Bob", {"": [0]})
    clips = open_clips(tmp_path)
    assert {clip: entry.runs for clip, entry in clips.clips.items()} == {"Ann": ((3, 4), (7, 7)), "Bob": ((0, 0),)}
    assert clips.read("Ann", 7).mouth_centre.tolist() == [126, 174]
    assert all(entry.split == "train" for entry in clips.clips.values())


def test_frames_read_are_kept_within_the_memory_allowed():
    clips = PaintedClips({"A": list(range(6))})
    first = clips.read("A", 0)
    assert clips.read("A", 0) is first and clips.loaded == [("A", 0)]
    clips._free = 2 * first.bytes
    for frame in (1, 2, 0, 3):  # 0 was used last: 1 has to go
        clips.read("A", frame)
    clips.loaded.clear()
    for frame in (0, 2, 3):
        clips.read("A", frame)
    assert clips.loaded == []
    clips.read("A", 1)
    assert clips.loaded == [("A", 1)]


def test_what_is_no_source_is_refused(records, tmp_path, pristine):
    with pytest.raises(InputError, match="does not exist"):
        open_clips(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither records"):
        open_clips(tmp_path)
    with pytest.raises(InputError, match="no renders; make records that have them with `asccl data reconstruct`"):
        open_clips(pristine)
    with pytest.raises(InputError, match="region 'all': expected face or head"):
        open_clips(records, region="all")
    with pytest.raises(InputError, match="no aligned_detail_image"):
        RecordClips(records, detail=True)
    with pytest.raises(InputError, match="none of 1 frames can be trusted"):
        RecordClips(write_records(tmp_path / "r", {CLIP: {0: {"flags": 1}}}))
    with pytest.raises(InputError, match="no clip 'B'"):
        open_clips(records).read("B", 0)
    with pytest.raises(InputError, match="no frame 77"):
        open_clips(records).read(CLIP, 77)


def test_damaged_pictures_are_named(tmp_path):
    damaged = {0: {"aligned_nmfc_image": b"\x89PNG nothing"}, 1: {"aligned_image": b"\xff\xd8 nothing"}}
    clips = RecordClips(write_records(tmp_path / "r", {CLIP: damaged}))
    for frame in (0, 1):
        with pytest.raises(InputError, match=rf"record {frame}"):
            clips.read(CLIP, frame)
    folder = write_subject(tmp_path / "Ann", {"": [0, 1]})
    (folder / "shapes_aligned" / "000000.png").write_bytes(b"no picture")
    (folder / "eye_landmarks_aligned" / "000001.txt").write_text("1 2\n3 4\n")
    with pytest.raises(InputError, match=r"shapes_aligned/000000\.png: no readable picture"):
        FolderClips([folder]).read("Ann", 0)
    with pytest.raises(InputError, match=r"000001\.txt: 2 x 2 numbers, expected at least 14"):
        FolderClips([folder]).read("Ann", 1)


def test_folders_that_do_not_match_are_refused(tmp_path):
    folder = write_subject(tmp_path / "Ann", {"000000": [0, 1]})
    (folder / "nmfcs_aligned" / "000000" / "000001.png").unlink()
    with pytest.raises(InputError, match="frame 000000/000001 and 0 more are not in both faces_aligned and nmfcs_alig"):
        FolderClips([folder])
    (folder / "masks_aligned").rename(folder / "masks")
    with pytest.raises(InputError, match="no masks_aligned"):
        FolderClips([folder])
