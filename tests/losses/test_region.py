"""Regions cut out of images: equal to the published clamped slices, with gradients to the pixels they hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.losses.region import crop_regions, mean_point

SIZE, SIDE = 20, 8
CENTRES = np.array([[10, 10], [0, 19], [19, 0], [-7, 4], [4, 40], [16, 17]], np.int32)


def test_regions_are_the_published_slices_round_clamped_centres():
    images = np.random.default_rng(0).normal(size=(len(CENTRES), SIZE, SIZE, 3)).astype(np.float32)
    found = jax.jit(crop_regions, static_argnums=2)(jnp.asarray(images), jnp.asarray(CENTRES), SIDE)
    for image, centre, crop in zip(images, CENTRES, found, strict=True):
        x, y = np.clip(centre, SIDE // 2, SIZE - SIDE // 2)
        np.testing.assert_array_equal(crop, image[y - 4 : y + 4, x - 4 : x + 4])


def test_gradients_go_to_the_pixels_of_the_region_only():
    images = jnp.ones((len(CENTRES), SIZE, SIZE, 1))
    gradient = jax.grad(lambda x: jnp.sum(crop_regions(x, jnp.asarray(CENTRES), SIDE)))(images)
    np.testing.assert_array_equal(jnp.sum(gradient, axis=(1, 2, 3)), SIDE**2)
    np.testing.assert_array_equal(gradient[1, 12:, :8], 1.0)


@pytest.mark.parametrize("side", [7, 22, 0])
def test_regions_that_do_not_fit_are_refused(side):
    with pytest.raises(InputError, match=f"regions of {side} pixels in images of 20 x 20"):
        crop_regions(jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros((1, 2), jnp.int32), side)


def test_the_middle_of_discs_lies_between_them():
    image = np.zeros((2, 20, 30, 3), np.float32)
    image[0, 4:7, 2:5], image[0, 4:7, 12:15] = 1.0, 1.0
    assert mean_point(jnp.asarray(image)).tolist() == [[8, 5], [15, 10]]
