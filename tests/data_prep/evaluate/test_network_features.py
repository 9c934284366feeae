"""One square a clip, around the face: points and pictures move together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.image import warping
from data_prep.evaluate.network_features import (
    CROP_SIDE,
    aligned_to_template,
    arcface_features,
    clip_crop,
    efficient_face_outputs,
    five_points,
    grey_crop,
    resnet_face_features,
    rgb_crop,
    syncnet_audio_features,
    syncnet_lip_features,
)
from tests.data_prep.evaluate.tiny_clips import face
from tests.models.tiny_face_networks import drawn_network


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


RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 256, (5, 40, 48, 3)).astype(np.uint8)
MEAN, DEVIATION = (0.57535914, 0.44928582, 0.40079932), (0.20735591, 0.18981615, 0.18132027)


def outputs(network, *inputs):
    inputs = [jnp.asarray(array, jnp.float32) for array in inputs]
    return jax.device_get(jax.jit(network.module.apply)(jax.tree.map(jnp.asarray, network.variables), *inputs))


def a_face(scale=1.0, shift=(0.0, 0.0)):
    """68 points whose five stand at ArcFace's template, larger and moved."""
    points = np.zeros((68, 2))
    points[36:42] = (38.2946, 51.6963)
    points[42:48] = (73.5318, 51.5014)
    points[30], points[48], points[54] = (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)
    around = np.array([[-3, 0], [0, 2], [3, 0], [1, -2], [-1, -2], [0, 2]])
    points[36:42] += around
    points[42:48] += around
    return points * scale + shift


def test_grey_crops_are_the_middle_of_the_shorter_side_at_164():
    image = RANDOM.integers(0, 256, (164, 200, 3)).astype(np.uint8)
    crop = grey_crop(image)[..., 0]
    # Nothing is resized here: (164 - 128) / 2 = 18 rows, (200 - 128) / 2 = 36 columns are left out.
    grey = image[18:146, 36:164] @ np.array([0.299, 0.587, 0.114])
    assert crop.shape == (128, 128)
    assert np.abs(crop - grey).max() <= 0.51


def test_colour_crops_are_the_middle_of_the_shorter_side_at_256():
    image = RANDOM.integers(0, 256, (300, 256, 3)).astype(np.uint8)
    np.testing.assert_array_equal(rgb_crop(image), image[38:262, 16:240])


def test_pictures_are_averaged_where_they_shrink():
    image = np.zeros((512, 512, 3), np.uint8)
    image[:, ::2] = 200
    # Stripes of one pixel turn grey, which interpolation between two pixels alone would not do.
    assert np.abs(rgb_crop(image).astype(int) - 100).max() <= 1


def test_the_longer_side_is_cut_off_to_whole_pixels():
    # 256 * 299 / 281 = 272.4 columns: 272, of which 24 on either side are left out.
    ramp = np.tile(np.linspace(0, 255, 299).astype(np.uint8)[None, :, None], (281, 1, 3))
    crop = rgb_crop(ramp)[0, :, 0].astype(int)
    expected = np.interp((np.arange(24, 248) + 0.5) * 299 / 272 - 0.5, np.arange(299), ramp[0, :, 0])
    assert np.abs(crop - expected).max() <= 1


def test_faces_are_brought_to_the_template():
    points = a_face(2.0, (40, 30))
    np.testing.assert_allclose(five_points(points)[2], (2 * 56.0252 + 40, 2 * 71.7366 + 30))
    image = np.zeros((300, 300, 3), np.uint8)
    x, y = np.meshgrid(np.arange(300), np.arange(300))
    image[..., 0] = np.clip(x, 0, 255)
    image[..., 1] = np.clip(y, 0, 255)
    face = aligned_to_template(image, points)
    assert face.shape == (112, 112, 3)
    # Pixel (x, y) of the result shows the picture at (2x + 40, 2y + 30), within 1/32 of a pixel.
    inside = slice(0, 100)
    rows, columns = np.meshgrid(np.arange(112), np.arange(112), indexing="ij")
    assert np.abs(face[inside, inside, 0].astype(int) - (2 * columns + 40)[inside, inside]).max() <= 1
    assert np.abs(face[inside, inside, 1].astype(int) - (2 * rows + 30)[inside, inside]).max() <= 1


def test_turned_faces_are_turned_back_and_black_is_outside():
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle), 60.0], [np.sin(angle), np.cos(angle), 5.0]])
    image = np.full((90, 90, 3), 255, np.uint8)
    face = aligned_to_template(image, warping.moved(a_face(), turn))
    corners = warping.moved(np.array([[0.0, 111], [56, 50], [111, 111]]), turn)
    for (x, y), level in zip(corners, (face[111, 0], face[50, 56], face[111, 111]), strict=True):
        seen = 0 <= x <= 89 and 0 <= y <= 89
        assert (level == (255 if seen else 0)).all()


@pytest.mark.parametrize("kind", ["array", "iterator"])
def test_batches_leave_no_trace(kind):
    network = drawn_network("resnet-face")
    whole = resnet_face_features(network, IMAGES, batch_size=5)
    assert whole.shape == (5, 12)
    assert whole.dtype == np.float32
    given = IMAGES if kind == "array" else iter(IMAGES)
    # Three programs' worth of pictures, the last one filled up; float32 sums may go in another order.
    np.testing.assert_allclose(resnet_face_features(network, given, batch_size=2), whole, rtol=1e-5, atol=1e-5)
    alone = resnet_face_features(network, IMAGES[3:4], batch_size=2)
    np.testing.assert_array_equal(alone, resnet_face_features(network, IMAGES[[3, 0]], batch_size=2)[:1])


def test_no_more_than_a_batch_is_held(monkeypatch):
    network, seen, taken = drawn_network("resnet-face"), [], 0

    def pictures():
        nonlocal taken
        for image in IMAGES:
            taken += 1
            yield image

    def run(forward, module, variables, batch):
        seen.append(taken)
        return (np.zeros((len(batch), 12), np.float32),)

    monkeypatch.setattr("data_prep.evaluate.network_features._run", run)
    resnet_face_features(network, pictures(), batch_size=2)
    assert seen == [2, 4, 5]


def test_resnet_face_sees_grey_levels_around_zero():
    network = drawn_network("resnet-face")
    crops = np.stack([grey_crop(image, 32) for image in IMAGES]).astype(np.float32)
    expected = outputs(network, (crops / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(resnet_face_features(network, IMAGES, batch_size=5), expected, rtol=1e-4, atol=1e-5)


def test_efficient_face_sees_normalised_colours_and_gives_probabilities():
    network = drawn_network("efficient-face")
    features, probabilities = efficient_face_outputs(network, IMAGES, batch_size=5)
    crops = np.stack([rgb_crop(image, 64) for image in IMAGES]).astype(np.float32) / 255
    normalised = (crops - np.float32(MEAN)) / np.float32(DEVIATION)
    expected, logits = outputs(network, normalised)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_arcface_sees_aligned_faces():
    network = drawn_network("arcface")
    landmarks = np.stack([a_face(0.4, (shift, 1.0)) for shift in range(5)])
    features = arcface_features(network, IMAGES, landmarks, batch_size=5)
    pairs = zip(IMAGES, landmarks, strict=True)
    faces = np.stack([aligned_to_template(image, points, 48) for image, points in pairs]).astype(np.float32)
    expected = outputs(network, (faces / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="as many of the one as of the other"):
        arcface_features(network, IMAGES, landmarks[:4])


def test_syncnet_takes_a_view_of_windows_in_bytes():
    network = drawn_network("syncnet")
    frames = RANDOM.integers(0, 256, (6, 224, 224, 3)).astype(np.uint8)
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(frames, 5, axis=0), -1, 1)
    sound = RANDOM.normal(size=(2, 20, 13))
    lips, heard = outputs(network, windows, sound)
    np.testing.assert_allclose(syncnet_lip_features(network, windows, batch_size=2), lips, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(syncnet_audio_features(network, sound, batch_size=3), heard, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_seen_is_named():
    network = drawn_network("resnet-face")
    with pytest.raises(InputError, match=r"network resnet-face: expected arcface; get backbone\.pth from"):
        arcface_features(network, IMAGES, np.zeros((5, 68, 2)))
    with pytest.raises(InputError, match="no pictures or sound were given"):
        resnet_face_features(network, [])
    with pytest.raises(InputError, match=r"window of shape \(19, 13\): expected \(20, 13\)"):
        syncnet_audio_features(drawn_network("syncnet"), iter([np.zeros((19, 13))]))
    for landmarks in (np.full((68, 2), np.nan), np.ones((68, 2))):
        with pytest.raises(InputError, match="landmarks"):
            aligned_to_template(IMAGES[0], landmarks)
