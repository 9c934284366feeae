"""The face box on arrays of both kinds, and where there are no landmarks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.geometry.face_box import inside_frame, landmark_box, mask_box
from asccl_jax.geometry.face_outline import face_outline
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
