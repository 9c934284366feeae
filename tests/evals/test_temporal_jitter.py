"""Jitter: none of steady motion and light, and the size of what shakes."""

import numpy as np
import pytest

from asccl_jax.evals.temporal_jitter import landmark_jitter, picture_jitter

RNG = np.random.default_rng(0)


def faces(count):
    points = np.tile(RNG.uniform(50, 200, (68, 2)), (count, 1, 1))
    points[:, 36], points[:, 45] = (100, 100), (150, 100)
    return points


def test_steady_motion_has_no_landmark_jitter():
    steady = faces(8) + np.arange(8)[:, None, None] * np.array([3.0, -1.5])
    np.testing.assert_allclose(landmark_jitter(steady), 0, atol=1e-12)


def test_one_frame_that_jumps_counts_once_before_once_after_twice_itself():
    jumping = faces(7)
    jumping[3, :, 0] += 5
    np.testing.assert_allclose(landmark_jitter(jumping), [0, 0.1, 0.2, 0.1, 0], atol=1e-12)
    np.testing.assert_allclose(landmark_jitter(2 * jumping), landmark_jitter(jumping), atol=1e-12)


def test_the_unit_is_the_eyes_distance_in_the_middle_frame():
    points = np.full((3, 68, 2), 10.0)
    points[:, 45, 0] = 10 + np.array([20.0, 50.0, 80.0])  # grows steadily
    points[1, 0, 1] += 34
    np.testing.assert_allclose(landmark_jitter(points), [2 * 34 / 68 / 50])


def test_jitter_is_unknown_beside_frames_without_a_face():
    points = faces(8)
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
