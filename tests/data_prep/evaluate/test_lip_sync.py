"""What SyncNet sees: margins, boxes, smoothing, channel order, and frames at another rate."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from data_prep.evaluate.lip_sync import (
    INT16_AMPLITUDE,
    STEP_25FPS,
    STEP_30FPS,
    SYNC_25FPS,
    SYNC_30FPS,
    aligned_face_crops,
    face_boxes,
    lip_sync,
    lip_sync_of_clip,
    lip_windows,
    nearest_frames,
    sound_columns,
    sound_windows,
    syncnet_crops,
    syncnet_mfcc,
    window_count,
)

RNG = np.random.default_rng(0)


def frames(count=3, shape=(256, 256)):
    return RNG.integers(0, 256, (count, *shape, 3), np.uint8)


def differs(image, expected):
    return np.abs(image.astype(int) - expected.astype(int)).max()


@pytest.mark.parametrize("margin", [35, 0])
def test_aligned_faces_lose_their_margin_and_are_bgr(margin):
    faces = frames()
    crops = aligned_face_crops(iter(faces), margin_px=margin)
    for crop, face in zip(crops, faces, strict=True):
        middle = face[margin : 256 - margin, margin : 256 - margin, ::-1]
        # OpenCV rounds its weights to 11 bits.
        assert differs(crop, cv2.resize(np.ascontiguousarray(middle), (224, 224))) <= 1


def test_margins_scale_with_the_face():
    small = cv2.resize(frames(1)[0], (128, 128))
    assert differs(aligned_face_crops([small], margin_px=64)[0], cv2.resize(small[32:96, 32:96, ::-1], (224, 224))) <= 1
    with pytest.raises(InputError, match="leaves nothing of a face of 128"):
        aligned_face_crops([small], margin_px=128)
    with pytest.raises(InputError, match="no frames"):
        aligned_face_crops([])


def test_crops_reach_from_one_half_side_above_to_1_8_below_and_1_4_aside():
    images = frames(3, (300, 280))
    boxes = np.tile([110.0, 100.0, 170.0, 180.0], (3, 1))  # middle (140, 140), half the longer side 40
    boxes += 0.7  # borders are rounded down
    crops = syncnet_crops(images, boxes)
    expected = cv2.resize(np.ascontiguousarray(images[1, 100:212, 84:196, ::-1]), (224, 224))
    assert differs(crops[1], expected) <= 1


def test_beyond_the_frame_it_is_grey():
    images = frames(1, (90, 80))
    crop = syncnet_crops(images, np.array([[40.0, 50.0, 120.0, 130.0]]))[0]  # rows 50..162, columns 24..136
    padded = np.pad(images[0], ((0, 100), (0, 100), (0, 0)), constant_values=110)[50:162, 24:136, ::-1]
    assert differs(crop, cv2.resize(np.ascontiguousarray(padded), (224, 224))) <= 1
    outside = syncnet_crops(images, np.array([[500.0, 500.0, 540.0, 540.0]]))
    assert (outside == 110).all()


def test_one_frame_whose_box_jumps_or_lacks_changes_nothing():
    images = np.repeat(frames(1), 20, axis=0)
    steady = np.tile([90.0, 80.0, 150.0, 160.0], (20, 1))
    crops = syncnet_crops(images, steady)
    odd = steady.copy()
    odd[0] += 30
    odd[7], odd[19] = [0, 0, 250, 250], np.nan
    np.testing.assert_array_equal(syncnet_crops(images, odd), crops)


def test_bad_boxes_are_refused():
    with pytest.raises(InputError, match="no face in any of 3 frames"):
        syncnet_crops(frames(3), np.full((3, 4), np.nan))
    for count in (2, 4):
        with pytest.raises(InputError, match="one of each frame"):
            syncnet_crops(frames(3), np.tile([90.0, 80.0, 150.0, 160.0], (count, 1)))


def test_boxes_are_those_of_the_landmarks_raised_to_the_hair():
    landmarks = RNG.uniform(60, 160, (2, 68, 2))
    landmarks[0, :2] = (50, 55), (150, 175)
    landmarks[0, 2:] = 100
    landmarks[1] = np.nan
    boxes = face_boxes(landmarks)
    np.testing.assert_allclose(boxes[0], [50, 55 - 30, 150, 175])
    assert np.isnan(boxes[1]).all()


def test_frames_of_another_rate_are_the_nearest_in_time():
    times = np.arange(139) / 30
    indices = nearest_frames(times, 25.0)
    assert len(indices) == 116 and indices[0] == 0 and indices[-1] == 138
    moments = np.arange(116) / 25
    np.testing.assert_array_equal(indices, np.abs(times[None] - moments[:, None]).argmin(axis=1))
    np.testing.assert_array_equal(nearest_frames(times + 7, 30.0), np.arange(139))
    assert nearest_frames(np.array([0.0, 0.1]), 30.0).tolist() == [0, 0, 1, 1, 1, 1]
    assert nearest_frames(np.array([5.0]), 25.0).tolist() == [0]
    with pytest.raises(InputError, match="expected one or more, rising"):
        nearest_frames(np.array([0.0, 0.0]), 25.0)


def embeddings(count, size=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def torch_scores(lip, sound, most):
    """Distances at every shift by torch's own pairwise distance, whose epsilon is 1e-6, and median."""
    lip, sound = torch.from_numpy(lip), torch.from_numpy(sound)
    padded = torch.nn.functional.pad(sound, (0, 0, most, most))
    each = [torch.nn.functional.pairwise_distance(lip[[i]], padded[i : i + 2 * most + 1]) for i in range(len(lip))]
    mean = torch.stack(each, 1).mean(1)
    least, place = torch.min(mean, 0)
    return float(least), float(torch.median(mean) - least), most - int(place)


@pytest.mark.parametrize(("count", "most"), [(40, 10), (40, 15), (3, 10), (1, 2)])
def test_scores_are_those_of_torch(count, most):
    lip, sound = embeddings(count), embeddings(count, seed=1)
    scores = lip_sync(lip, sound, most=most)
    lse_d, lse_c, offset = torch_scores(lip, sound, most)
    # torch works in float32.
    assert scores.lse_d == pytest.approx(lse_d, rel=1e-6)
    assert scores.lse_c == pytest.approx(lse_c, abs=1e-5)
    assert (scores.offset, scores.windows) == (offset, count)


def test_the_epsilon_is_added_to_each_component():
    lip = np.zeros((1, 4))
    assert lip_sync(lip, lip, most=0).lse_d == pytest.approx(np.sqrt(4) * 1e-6)


@pytest.mark.parametrize("offset", [-7, -1, 0, 4, 10])
def test_a_picture_that_is_late_has_a_positive_offset(offset):
    course = embeddings(60, 64)
    lip = course[12 - offset : 42 - offset] + 0.3 * embeddings(30, 64, seed=5)
    sound = course[12:42] + 0.3 * embeddings(30, 64, seed=6)
    scores = lip_sync(lip, sound)
    assert scores.offset == offset
    assert scores.lse_c > 1


def test_windows_are_five_frames_and_the_twenty_columns_beside_them():
    images = RNG.integers(0, 256, (12, 4, 4, 3), np.uint8)
    columns = RNG.normal(size=(43, 13))
    count = window_count(12, 43)
    assert count == 10 - 5  # ten whole frames of sound
    seen, heard = lip_windows(images, count), sound_windows(columns, count)
    assert seen.shape == (5, 5, 4, 4, 3) and heard.shape == (5, 20, 13)
    for i in range(count):
        np.testing.assert_array_equal(seen[i], images[i : i + 5])
        np.testing.assert_array_equal(heard[i], columns[4 * i : 4 * i + 20])
    assert window_count(12, 400) == 7


def test_a_clip_too_short_for_one_window_is_refused():
    for frames, columns in ((5, 100), (100, 23), (0, 0)):
        with pytest.raises(InputError, match="needs 6 frames and 24 columns"):
            window_count(frames, columns)


def test_networks_get_every_window_once_in_order():
    images = RNG.integers(0, 256, (80, 2, 2, 3), np.uint8)
    columns = RNG.normal(size=(330, 13))
    sizes = []

    def lip(windows):
        sizes.append(len(windows))
        assert windows.shape[1:] == (5, 2, 2, 3) and windows.flags.c_contiguous
        return windows.reshape(len(windows), -1).astype(np.float32)[:, :13]

    def sound(windows):
        return windows.mean(axis=1).astype(np.float32)

    scores = lip_sync_of_clip(images, columns, lip, sound)
    assert scores.windows == sum(sizes) == 75 and max(sizes) <= 32
    expected = lip(np.stack([images[i : i + 5] for i in range(75)]))
    assert scores == lip_sync(expected, sound(sound_windows(columns, 75)))


def test_protocols_differ_in_step_amplitude_and_what_a_skipped_frame_is():
    samples = RNG.normal(0, 0.1, 16000)
    np.testing.assert_array_equal(sound_columns(samples, SYNC_25FPS), syncnet_mfcc(samples, 160, amplitude=32768.0))
    np.testing.assert_array_equal(sound_columns(samples, SYNC_30FPS), syncnet_mfcc(samples, 133))
    skipped = sound_columns(samples, SYNC_30FPS, skip=2)
    np.testing.assert_array_equal(skipped, syncnet_mfcc(samples[2 * 533 :], 133))
    np.testing.assert_array_equal(
        sound_columns(samples, SYNC_25FPS, skip=1), syncnet_mfcc(samples[640:], 160, amplitude=32768.0)
    )


def test_embeddings_that_are_not_finite_are_refused():
    bad = embeddings(4)
    bad[2, 3] = np.nan
    with pytest.raises(InputError, match="finite"):
        lip_sync(bad, embeddings(4))


GOLDEN = json.loads((Path(__file__).parents[2] / "goldens" / "speech_mfcc.json").read_text())


def formula_sound(count=4000):
    """A rising tone under a steady one, with digital silence in between."""
    k = np.arange(count)
    sound = 0.4 * np.sin(0.05 * k + 2e-5 * k * k) + 0.2 * np.sin(0.9 * k)
    sound[1600:2300] = 0
    return sound


@pytest.mark.parametrize(("name", "step", "amplitude"), [("25fps", 160, 32768.0), ("30fps", 133, 1.0)])
def test_rows_are_those_of_the_reference_package(name, step, amplitude):
    columns = syncnet_mfcc(formula_sound(), step, amplitude=amplitude)
    assert columns.shape == (GOLDEN[name]["columns"], 13)
    for row, expected in GOLDEN[name]["rows"].items():
        # The golden has twelve digits; the two agree to the last bit where it was made.
        np.testing.assert_allclose(columns[int(row)], expected, rtol=1e-9, atol=1e-9, err_msg=row)


@pytest.mark.parametrize(
    ("count", "step", "columns"),
    [
        (1, 160, 1),
        (399, 133, 1),
        (400, 133, 1),
        (401, 160, 2),
        (533, 133, 2),
        (534, 133, 3),
        (560, 160, 2),
        (561, 160, 3),
    ],
)
def test_the_last_window_is_filled_with_zeros(count, step, columns):
    sound = formula_sound(count)
    made = syncnet_mfcc(sound, step)
    assert made.shape == (columns, 13)
    # Samples that the pre-emphasis turns into zeros.
    longer = list(sound)
    while len(longer) < 400 + (columns - 1) * step:
        longer.append(0.97 * longer[-1])
    np.testing.assert_array_equal(syncnet_mfcc(np.array(longer), step), made)


def test_only_the_energy_tells_16_bit_integers_from_fractions():
    sound = formula_sound()[:1600]
    small, large = syncnet_mfcc(sound, STEP_25FPS), syncnet_mfcc(sound, STEP_25FPS, amplitude=INT16_AMPLITUDE)
    np.testing.assert_allclose(large[:, 1:], small[:, 1:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(large[:, 0] - small[:, 0], 2 * np.log(32768), rtol=0, atol=1e-9)


def test_long_sound_is_the_same_in_pieces():
    sound = np.random.default_rng(0).normal(0, 0.1, 4100 * STEP_30FPS)
    columns = syncnet_mfcc(sound, STEP_30FPS)
    later = syncnet_mfcc(sound[4080 * STEP_30FPS :], STEP_30FPS)
    # The first window of the later part lacks the sample before it.
    np.testing.assert_allclose(columns[4081:], later[1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("sound", [np.zeros(0), np.array([0.0, np.nan])])
def test_no_sound_is_refused(sound):
    with pytest.raises(InputError, match="expected finite"):
        syncnet_mfcc(sound, STEP_25FPS)
