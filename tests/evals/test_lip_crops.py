"""What SyncNet sees: margins, boxes, smoothing, channel order, and frames at another rate."""

import cv2
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.evals.lip_crops import aligned_face_crops, face_boxes, nearest_frames, syncnet_crops

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
