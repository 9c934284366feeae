"""The face box on arrays of both kinds, and where there are no landmarks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from asccl_jax.errors import InputError
from asccl_jax.image.face_box import inside_frame, landmark_box, mask_box
from asccl_jax.image.face_crop import crop_faces
from asccl_jax.image.polygon import face_outline
from data_prep.media.crop import crop_face
from tests.data.painted_clips import landmarks

LANDMARKS = np.random.default_rng(0).uniform(-20, 220, (3, 68, 2))


def test_box_is_that_of_the_borders_of_the_landmarks_pixels_and_a_tenth():
    points = np.full((68, 2), 60.0)
    points[3], points[5] = (50.25, 40), (150.25, 90)
    np.testing.assert_allclose(landmark_box(points), [40.75, 35.5, 160.75, 95.5])
    np.testing.assert_allclose(inside_frame(landmark_box(points), (80, 150)), [40.75, 35.5, 150, 80])


def test_traced_landmarks_give_the_box_of_numpys():
    def boxes(points):
        return inside_frame(landmark_box(points), (200, 180))

    expected = boxes(LANDMARKS)
    points = jnp.asarray(LANDMARKS, jnp.float32)
    np.testing.assert_allclose(jax.jit(boxes)(points), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(boxes))(points), expected, rtol=1e-5)


@pytest.mark.parametrize("frame", [0, 11])
def test_box_of_a_mask_and_eyes_is_near_that_of_the_landmarks(frame):
    points = landmarks(frame)
    mask = face_outline(points, (256, 256))
    pupils = points[36:48].reshape(2, 6, 2).mean(axis=1)
    found, expected = mask_box(mask, np.concatenate([points[36:48], pupils])), landmark_box(points)
    sides = expected[2:] - expected[:2]
    # Sides and chin to the pixel; the brows, here a fifth of the way, to a thirtieth of the face.
    np.testing.assert_allclose(found[[0, 2, 3]], expected[[0, 2, 3]], atol=1.5)
    np.testing.assert_allclose(found[1], expected[1], atol=sides[1] / 30)


def test_box_of_an_empty_mask_is_the_frame():
    np.testing.assert_array_equal(mask_box(np.zeros((60, 80), bool), np.zeros((14, 2))), [0, 0, 80, 60])


RANDOM = np.random.default_rng(0)
BOXES = jnp.asarray([[3.3, 2.7, 30.2, 40.4], [0, 0, 48, 44], [20.5, 30, 29, 37.25]])

crop = jax.jit(crop_faces, static_argnames="size")


@pytest.mark.parametrize("size", [16, 112])
@pytest.mark.parametrize("corner", [(60, 40), (-30, 70)])
def test_crops_are_those_of_preparation(size, corner):
    image = RANDOM.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    landmarks = RANDOM.uniform(corner, (230, 225), (68, 2)).astype(np.float32)
    face = crop_face(image, landmarks, size=size)
    found = crop(jnp.asarray(image[None], jnp.float32), face.box[None], size=size)[0]
    # Pillow rounds to 8 bits twice, after columns and after rows.
    np.testing.assert_allclose(found, face.image.astype(np.float32), atol=1.02)
    assert np.abs(np.asarray(found) - face.image).mean() < 0.35


def test_each_image_is_cut_by_its_own_box():
    images = RANDOM.integers(0, 256, (3, 44, 48, 3), dtype=np.uint8)
    found = crop(jnp.asarray(images, jnp.float32), BOXES, size=20)
    for image, box, square in zip(images, np.asarray(BOXES), found, strict=True):
        expected = Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR, tuple(box.tolist()))
        np.testing.assert_allclose(square, np.asarray(expected, np.float32), atol=1.02)


@pytest.mark.parametrize("size", [9, 60])
def test_gradients_are_those_of_finite_differences(size):
    # In float64: of differences of float32 little is left.
    with jax.enable_x64(True):
        image, box = jnp.asarray(RANDOM.uniform(-1, 1, (3, 44, 48, 2))), BOXES.astype(jnp.float64)
        weights = jnp.asarray(RANDOM.standard_normal((3, size, size, 2)))

        @jax.jit
        def total(image, box):
            return jnp.sum(weights * crop_faces(image, box, size))

        to_image, to_box = jax.grad(total, argnums=(0, 1))(image, box)
        along, moved = (jnp.asarray(RANDOM.standard_normal(x.shape)) for x in (image, box))
        step = 1e-7
        by_image = (total(image + step * along, box) - total(image - step * along, box)) / (2 * step)
        np.testing.assert_allclose(jnp.vdot(to_image, along), by_image, rtol=1e-5)
        moved = moved.at[1].set(0.0)  # a border of the frame is a kink
        by_box = (total(image, box + step * moved) - total(image, box - step * moved)) / (2 * step)
        np.testing.assert_allclose(jnp.vdot(to_box, moved), by_box, rtol=1e-4)


def test_every_pixel_of_a_face_that_shrinks_gets_its_gradient():
    image, box = jnp.zeros((1, 256, 256, 3)), jnp.asarray([[20.0, 30.0, 240.0, 250.0]])
    gradient = jax.jit(jax.grad(lambda image: crop_faces(image, box, 28).sum()))(image)
    assert (np.asarray(gradient)[0, 30:250, 20:240] > 0).all()


def test_vmap_equals_a_loop_and_bfloat16_keeps_its_places():
    images = jnp.asarray(RANDOM.uniform(-1, 1, (2, 3, 44, 48, 3)), jnp.float32)
    found = jax.vmap(lambda image: crop_faces(image, BOXES, 20))(images)
    np.testing.assert_allclose(found[1], crop_faces(images[1], BOXES, 20), atol=1e-6)
    coarse = crop_faces(images[0].astype(jnp.bfloat16), BOXES, 20)
    assert coarse.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(jnp.float32), found[0], atol=2**-7)


def test_boxes_of_another_count_are_refused():
    with pytest.raises(InputError, match=r"boxes of shape \(4,\) for 1 images"):
        crop_faces(jnp.zeros((1, 8, 8, 3)), jnp.zeros(4), 4)


@pytest.mark.parametrize(
    "box",
    [(4, 4, 4, 12), (20, 2, 30, 12), (-9, 2, 0.5, 12), (12, 2, 4, 12), (0.2, 0.2, 0.8, 0.8), (np.nan, 2, 12, 12)],
)
def test_boxes_with_nothing_in_them_are_refused(box):
    boxes = np.array([[2, 2, 12, 12], box], np.float32)
    with pytest.raises(InputError, match=r"box of image 1 is \(.*\), expected x0 < x1 and y0 < y1 in pixels"):
        crop_faces(jnp.zeros((2, 16, 16, 3)), boxes, 8)
