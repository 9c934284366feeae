"""Eye files: what the core fills in is what OpenCV fills in; rows are those of the published layout."""

import cv2
import numpy as np

from asccl_jax.image.polygon import polygon_mask
from data_prep.reconstruct.folders import eye_rows


def test_polygons_equal_those_of_opencv():
    rng = np.random.default_rng(0)
    for _ in range(300):
        corners = rng.integers(1, 40, (rng.integers(3, 8), 2))
        expected = np.zeros((41, 41), np.uint8)
        cv2.fillPoly(expected, [corners.astype(np.int32)], 1)
        np.testing.assert_array_equal(polygon_mask(corners, (41, 41)), expected > 0, err_msg=str(corners.tolist()))


def test_rows_are_contours_pupils_and_mouth():
    rng = np.random.default_rng(1)
    image, landmarks = rng.integers(0, 256, (96, 96, 3), np.uint8), rng.uniform(10, 80, (68, 2))
    rows = eye_rows(image, landmarks, mouth=True)
    assert rows.shape == (34, 2)
    np.testing.assert_array_equal(rows[:12], np.trunc(landmarks[36:48]))
    np.testing.assert_array_equal(rows[14:], landmarks[48:])
    np.testing.assert_array_equal(eye_rows(image, landmarks, mouth=False), rows[:14])
