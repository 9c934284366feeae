"""Eye images, pupils and middles: equal to the published code's own results."""

from pathlib import Path

import numpy as np
import pytest

from asccl_jax.geometry.eyes import (
    draw_eyes,
    edited_eye_points,
    eye_points,
    median_point,
    noisy_eye_points,
    pupil_centre,
)


@pytest.fixture(scope="module")
def golden():
    """The parts on eyes and mouths of the golden file `postprocess.npz`, of the published code with OpenCV."""
    with np.load(Path(__file__).with_name("golden_eyes.npz")) as archive:
        return dict(archive)


@pytest.mark.parametrize("case", range(4))
def test_eye_image_is_the_published_one(golden, case):
    image = golden[f"eyes_image{case}"]
    assert image.any()
    np.testing.assert_array_equal(draw_eyes(golden[f"eyes_pts{case}"], image.shape[:2]), image)


def test_noise_is_the_published_one(golden):
    noisy = noisy_eye_points(golden["eyes_pts1"], golden["f64_eyes_noise_draws"])
    np.testing.assert_array_equal(draw_eyes(noisy, (72, 64)), golden["eyes_image_noise"])
    np.testing.assert_array_equal(noisy_eye_points(golden["eyes_pts1"], np.zeros(3)), golden["eyes_pts1"])


def test_pupil_is_the_published_one(golden):
    centre = pupil_centre(golden["f64_pupil_gray"], golden["pupil_poly"])
    np.testing.assert_allclose(centre, golden["f64_pupil_mass_center"], rtol=0, atol=1e-12)  # order of a float64 sum


def test_middles_are_the_published_ones(golden):
    points = golden["f64_centres_keypoints"]
    np.testing.assert_array_equal(median_point(points[14:]), golden["centres_mouth"][0])
    np.testing.assert_array_equal(median_point(points[:14]), golden["centres_eyes"][0])


def test_pupil_is_where_the_eye_is_dark():
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(5, 90, (68, 2))
    landmarks[36:42] = [[20, 40], [25, 36.7], [31, 36], [36, 40], [31, 44], [25, 44]]
    landmarks[42:48] = landmarks[36:42] + np.array([40.9, 0])
    image = np.full((96, 96, 3), 250, np.uint8)
    image[39:42, 26:29] = 2
    image[38:41, 67:70] = 2
    points = eye_points(image, landmarks)
    np.testing.assert_array_equal(points[:12], np.trunc(landmarks[36:48]))
    assert np.abs(points[12:] - [[27, 40], [68, 39]]).max() <= 1
    black = eye_points(np.zeros_like(image), landmarks)
    np.testing.assert_array_equal(black[12], np.trunc(np.trunc(landmarks[36:42]).mean(axis=0)))


def test_edited_pupils_move_with_their_contours():
    rng = np.random.default_rng(1)
    landmarks = rng.integers(10, 90, (68, 2)).astype(float)
    source = np.concatenate([landmarks[36:48], [[30, 31], [60, 33]]])
    np.testing.assert_array_equal(edited_eye_points(source, landmarks), source)
    moved = landmarks.copy()
    moved[36:42] += [3, -2]
    expected = source.copy()
    expected[[0, 1, 2, 3, 4, 5, 12]] += [3, -2]
    np.testing.assert_array_equal(edited_eye_points(source, moved), expected)
