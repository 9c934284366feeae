"""Face crops against their formulas."""

import cv2
import numpy as np
import pytest
import simplejpeg

from data_prep.media.crop import UnusableFaceError, crop_face, encode_jpeg, landmark_box

RNG = np.random.default_rng(0)


def points_between(low, high):
    points = RNG.uniform(low, high, (68, 2)).astype(np.float32)
    points[0], points[1] = low, high
    return points


def frame(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


def released_naively(image, points, size):
    """The published steps, one after the other."""
    height, width = image.shape[:2]
    squashed = cv2.resize(image, (224, 224))
    moved = [(int((x + 0.5) * 224 / width - 0.5), int((y + 0.5) * 224 / height - 0.5)) for x, y in points.astype(float)]
    x, y, w, h = cv2.boundingRect(np.array(moved, np.int32))
    x, y, w, h = int(x - 0.1 * w), int(y - 0.1 * h), int(1.2 * w), int(1.2 * h)
    return cv2.resize(squashed[y : y + h, x : x + w], (size, size)), (x, y, w, h)


@pytest.mark.parametrize(("height", "width", "size"), [(224, 224, 512), (360, 640, 256), (300, 200, 112)])
def test_released_crop_equals_the_published_steps(height, width, size):
    image = frame(height, width)
    points = points_between((0.3 * width, 0.25 * height), (0.7 * width, 0.8 * height))
    expected, (x, y, w, h) = released_naively(image, points, size)
    face = crop_face(image, points, size=size, mode="released")
    np.testing.assert_array_equal(face.image, expected)
    borders = np.array([x, y, x + w, y + h]) * np.array([width, height, width, height]) / 224
    np.testing.assert_allclose(face.box, borders, rtol=1e-6)


def test_released_crop_beyond_the_right_border_is_cut_there():
    image, points = frame(224, 224), points_between((120, 60), (215, 160))
    expected, _ = released_naively(image, points, 64)
    face = crop_face(image, points, size=64, mode="released")
    np.testing.assert_array_equal(face.image, expected)
    assert face.box[2] == 224


def test_released_crop_from_a_negative_corner_is_refused():
    with pytest.raises(UnusableFaceError, match="start outside"):
        crop_face(frame(224, 224), points_between((4, 60), (120, 160)), mode="released")


def test_corrected_box_is_the_points_box_and_a_tenth():
    box = landmark_box(points_between((50.25, 40), (150.25, 90)), frame_size=(200, 300))
    np.testing.assert_allclose(box, [40.75, 35.5, 160.75, 95.5], rtol=1e-6)


def test_corrected_box_is_clamped_to_the_frame():
    box = landmark_box(points_between((-5, 20), (95, 190)), frame_size=(200, 300))
    np.testing.assert_allclose(box, [0, 3.5, 105.5, 200], rtol=1e-6)


@pytest.mark.parametrize("mode", ["corrected", "released"])
def test_a_face_outside_the_frame_or_without_points_is_refused(mode):
    with pytest.raises(UnusableFaceError, match="outside the frame"):
        landmark_box(points_between((400, 20), (500, 190)), frame_size=(200, 300), mode=mode)
    with pytest.raises(UnusableFaceError, match="no face found"):
        landmark_box(np.full((68, 2), np.nan, np.float32), frame_size=(200, 300), mode=mode)


def test_corrected_crop_of_whole_pixels_at_their_size_copies_them():
    image = frame(200, 300)
    points = points_between((59.5, 49.5), (139.5, 129.5))  # borders 60 to 140 and 50 to 130, the margin is 8
    face = crop_face(image, points, size=96)
    np.testing.assert_allclose(face.box, [52, 42, 148, 138], atol=1e-4)
    np.testing.assert_array_equal(face.image, image[42:138, 52:148])


def test_corrected_crop_averages_where_it_shrinks():
    image = np.zeros((256, 256, 3), np.uint8)
    image[:, ::2] = 255  # stripes of one pixel: plain bilinear sampling would alias
    face = crop_face(image, points_between((20, 20), (235, 235)), size=32)
    assert np.abs(face.image[4:-4, 4:-4].astype(int) - 127).max() <= 4


@pytest.mark.parametrize("mode", ["corrected", "released"])
def test_landmarks_move_with_the_crop(mode):
    image = np.zeros((400, 400, 3), np.uint8)
    points = points_between((100, 120), (260, 280))
    points[30] = (180, 200)
    image[196:205, 176:185] = 255  # a white square around point 30
    face = crop_face(image, points, size=224, mode=mode)
    rows, columns = np.nonzero(face.image[..., 0] > 127)
    # The released crop works on whole pixels of a smaller frame: half of one of them is up to 1.5 pixels here.
    np.testing.assert_allclose(
        face.landmarks[30], [columns.mean(), rows.mean()], atol=0.3 if mode == "corrected" else 1.5
    )
    if mode == "corrected":
        low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
        np.testing.assert_allclose(np.concatenate([low, high]) + 0.5, [224 / 12] * 2 + [224 * 11 / 12] * 2, rtol=1e-5)


def test_jpeg_keeps_the_colour_of_single_pixels():
    image = np.full((32, 32, 3), 128, np.uint8)
    image[::2, ::2] = (200, 80, 128)
    encoded = encode_jpeg(image)
    assert simplejpeg.decode_jpeg_header(encoded)[3] == "444"
    # Quality 95 with full colour resolution: with halved resolution the error here exceeds 30.
    assert np.abs(simplejpeg.decode_jpeg(encoded).astype(int) - image).max() <= 12
