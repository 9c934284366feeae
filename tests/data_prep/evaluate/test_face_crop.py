"""One square a clip, around the face: points and pictures move together."""

import numpy as np

from data_prep.evaluate.face_crop import CROP_SIDE, clip_crop
from tests.data_prep.evaluate.tiny_clips import face


def test_points_and_pictures_move_together():
    points = np.stack([face(4.0) + np.float32([150, 90])] * 3)
    square = clip_crop(points)
    image = np.zeros((240, 320, 3), np.uint8)
    x, y = np.rint(points[0, 30]).astype(int)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    rows, columns = np.nonzero(square.image(image)[..., 0] > 127)
    assert square.image(image).shape == (CROP_SIDE, CROP_SIDE, 3)
    # The bright square lies at whole pixels of the frame, of which one is several of the crop.
    np.testing.assert_allclose(
        [columns.mean(), rows.mean()], square.points(points)[0, 30], atol=0.6 * CROP_SIDE / square.side
    )


def test_the_face_lies_inside_whatever_single_frames_do():
    points = np.stack([face(4.0) + np.float32([150, 90])] * 5)
    points[2] = np.nan
    points[4] += 500
    inside = clip_crop(points).points(points)[0]
    assert inside.min() > 0
    assert inside.max() < CROP_SIDE


def test_a_clip_without_a_face_has_none():
    assert clip_crop(np.full((3, 68, 2), np.nan, np.float32)) is None
