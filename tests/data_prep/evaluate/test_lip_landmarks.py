"""Lips against lips: distances that a moving head does not change, lags found exactly, figures known of real clips."""

from pathlib import Path

import numpy as np
import pytest

from asccl_jax.errors import InputError
from data_prep.evaluate.lip_landmarks import (
    inter_ocular,
    lag_frames,
    landmark_jitter,
    lip_landmark_distance,
    mouth_correlation,
    mouth_opening,
    picture_jitter,
)

CLIPS = Path(__file__).parents[4] / "shared" / "clips" / "landmarks68"
RNG = np.random.default_rng(0)


def faces(count=6, seed=0):
    """Landmarks all over, the eyes' outer corners 60 pixels apart."""
    points = np.random.default_rng(seed).uniform(50, 200, (count, 68, 2))
    points[:, 36], points[:, 45] = (100, 100), (160, 100)
    return points


def moved(points, angle=0.3, size=1.7, shift=(40, -9)):
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + np.array(shift)


def speech(count, seed=0):
    """A mouth that opens and shuts: syllables of uneven length and size, never below shut."""
    random = np.random.default_rng(seed)
    times = np.arange(count + 40) / 30
    waves = sum(a * np.sin(2 * np.pi * f * times + p) for a, f, p in random.uniform((0.2, 1, 0), (1, 6, 6), (5, 3)))
    return 0.05 * np.maximum(0, waves)


def test_distance_is_the_mean_over_lips_in_inter_ocular_distances():
    source = faces()
    fake = source.copy()
    fake[:, 48:68, 1] += 6
    fake[:, :36] += 50  # outline, brows and nose do not count
    np.testing.assert_allclose(lip_landmark_distance(source, fake), 0.1)
    fake[2, 48:58, 1] -= 6
    assert lip_landmark_distance(source, fake)[2] == pytest.approx(0.05)


def test_a_head_that_turns_grows_and_wanders_changes_nothing():
    source, fake = faces(), faces(seed=1)
    still = lip_landmark_distance(source, fake)
    np.testing.assert_allclose(lip_landmark_distance(source, moved(fake)), still)
    np.testing.assert_allclose(lip_landmark_distance(moved(source, -1.0), fake), still)
    np.testing.assert_allclose(mouth_opening(moved(source)), mouth_opening(source))
    np.testing.assert_allclose(inter_ocular(moved(source)), 60 * 1.7)


def test_opening_is_the_mean_gap_of_the_inner_lips():
    source = faces(1)
    for upper, lower, gap in ((61, 67, 6), (62, 66, 12), (63, 65, 9)):
        source[0, lower] = source[0, upper] + (0, gap)
    assert mouth_opening(source)[0] == pytest.approx(9 / 60)


def test_frames_without_a_face_are_unknown_and_cost_the_others_nothing():
    source, fake = faces(40), faces(40, 1)
    source[3], fake[5] = np.nan, np.nan
    fake[7, 45] = fake[7, 36]
    distances = lip_landmark_distance(source, fake)
    assert np.flatnonzero(np.isnan(distances)).tolist() == [3, 5, 7]
    opening = speech(40)[:40]
    with_gaps = opening.copy()
    with_gaps[[2, 9, 10]] = np.nan
    assert mouth_correlation(opening, 2 * with_gaps + 1) == pytest.approx(1)
    assert lag_frames(opening, np.append(with_gaps[1:], 0.0)) == -1


def test_correlation_is_that_of_numpy_and_unknown_of_a_still_mouth():
    first, second = RNG.normal(size=30), RNG.normal(size=30)
    assert mouth_correlation(first, second) == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert np.isnan(mouth_correlation(first, np.full(30, 0.1)))
    assert np.isnan(mouth_correlation(first[:2], second[:2]))


@pytest.mark.parametrize("lag", range(-8, 9))
@pytest.mark.parametrize("seed", range(3))
def test_a_known_shift_is_found_exactly_in_noise_and_another_emotion(lag, seed):
    random = np.random.default_rng(100 + seed)
    course = speech(90, seed)
    source = course[10:100]
    # Late by `lag`: what the source shows at i, the fake shows at i + lag. A wider, opener mouth with a drift.
    fake = 0.7 * course[10 - lag : 100 - lag] + 0.03 + 0.02 * np.arange(90) / 90
    noisy = [values + random.normal(0, 0.15 * course.std(), values.shape) for values in (source, fake)]
    assert lag_frames(*noisy) == lag
    assert lag_frames(noisy[1], noisy[0]) == -lag


def test_the_published_loss_of_two_frames_is_two_frames_early():
    course = speech(80)
    assert lag_frames(course[:80], course[2:80]) == -2
    assert lag_frames(course[:80], course[:80]) == 0


def test_no_lag_where_a_mouth_is_still_or_frames_are_few():
    assert lag_frames(speech(40), np.full(40, 0.1)) is None
    assert lag_frames(speech(40)[:2], speech(40)[:2]) is None
    # Equal agreement at every whole period: the nearest to zero counts.
    periodic = np.tile([0.0, 0.1, 0.3, 0.1], 20)
    assert lag_frames(periodic, periodic) == 0
    assert lag_frames(periodic[:76], periodic[3:79]) == 1


def test_unpaired_frames_are_refused():
    with pytest.raises(InputError, match="4 source and 3 fake frames"):
        lip_landmark_distance(faces(4), faces(3))
    with pytest.raises(InputError, match="4 source and 3 fake frames"):
        mouth_correlation(np.zeros(4), np.zeros(3))


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs ../shared/clips/landmarks68")
@pytest.mark.parametrize(("method", "distance"), [("ned", 0.085), ("ours", 0.035)])
def test_published_outputs_have_the_distance_measured_before_and_no_lag(method, distance):
    source, fake = (
        np.load(CLIPS / f"W015_s039_neutral_{name}.npz", allow_pickle=False)["lm68"].astype(np.float64)
        for name in ("src", f"to_happy_{method}")
    )
    # The figures have two digits; this definition gives 0.0853 and 0.0345.
    assert lip_landmark_distance(source, fake).mean() == pytest.approx(distance, abs=0.0006)
    openings = mouth_opening(source), mouth_opening(fake)
    assert mouth_correlation(*openings) > 0.6
    assert lag_frames(*openings) == 0
    for shift in (-5, -2, 3):
        assert lag_frames(openings[0][5:-5], openings[1][5 - shift : len(fake) - 5 - shift]) == shift


def moving_faces(count):
    points = np.tile(RNG.uniform(50, 200, (68, 2)), (count, 1, 1))
    points[:, 36], points[:, 45] = (100, 100), (150, 100)
    return points


def test_steady_motion_has_no_landmark_jitter():
    steady = moving_faces(8) + np.arange(8)[:, None, None] * np.array([3.0, -1.5])
    np.testing.assert_allclose(landmark_jitter(steady), 0, atol=1e-12)


def test_one_frame_that_jumps_counts_once_before_once_after_twice_itself():
    jumping = moving_faces(7)
    jumping[3, :, 0] += 5
    np.testing.assert_allclose(landmark_jitter(jumping), [0, 0.1, 0.2, 0.1, 0], atol=1e-12)
    np.testing.assert_allclose(landmark_jitter(2 * jumping), landmark_jitter(jumping), atol=1e-12)


def test_the_unit_is_the_eyes_distance_in_the_middle_frame():
    points = np.full((3, 68, 2), 10.0)
    points[:, 45, 0] = 10 + np.array([20.0, 50.0, 80.0])  # grows steadily
    points[1, 0, 1] += 34
    np.testing.assert_allclose(landmark_jitter(points), [2 * 34 / 68 / 50])


def test_jitter_is_unknown_beside_frames_without_a_face():
    points = moving_faces(8)
    points[3] = np.nan
    assert np.isnan(landmark_jitter(points)).tolist() == [False, True, True, True, False, False]
    assert landmark_jitter(points[:2]).shape == (0,)


def test_picture_jitter_is_the_mean_second_difference():
    images = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)
    expected = np.abs(np.diff(images.astype(float), n=2, axis=0)).mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(picture_jitter(iter(images)), expected)
    brighter = [np.full((3, 3, 3), 10 * t, np.uint8) for t in range(5)]
    assert not picture_jitter(brighter).any()
    assert picture_jitter(brighter[:2]).shape == (0,)


def test_only_pixels_count_that_all_three_masks_show():
    images = RNG.integers(0, 256, (4, 3, 3, 3), np.uint8)
    masks = np.zeros((4, 3, 3), bool)
    masks[:, 0, :2] = True
    masks[3, 0, 0] = False
    differences = np.abs(np.diff(images.astype(float), n=2, axis=0))[:, 0, :2].mean(axis=2) / 255
    np.testing.assert_allclose(picture_jitter(images, masks), [differences[0].mean(), differences[1, 1]])
    masks[1] = False
    assert np.isnan(picture_jitter(images, masks)).all()


def test_flicker_of_one_level_is_found():
    images = [np.full((2, 2, 3), 100 + t % 2, np.uint8) for t in range(5)]
    assert picture_jitter(images).tolist() == pytest.approx([2 / 255] * 3)
