import numpy as np
import pytest

from asccl_jax.geometry.pyramid import doubled, gaussian_pyramid, halved, laplacian_pyramid, rebuilt

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(64, 48), (37, 21), (5, 3)])
def test_a_laplacian_pyramid_gives_its_picture_back(shape):
    image = RNG.random((*shape, 3)).astype(np.float32)
    pyramid = laplacian_pyramid(image, 4)
    assert len(pyramid) == 5
    # Each level is subtracted and added once in float32.
    np.testing.assert_allclose(rebuilt(pyramid), image, atol=1e-6)


def test_levels_are_half_as_large_rounded_up():
    shapes = [level.shape for level in gaussian_pyramid(np.zeros((37, 20, 1), np.float32), 3)]
    assert shapes == [(37, 20, 1), (19, 10, 1), (10, 5, 1), (5, 3, 1)]


def test_one_value_has_no_details():
    top, *details = laplacian_pyramid(np.full((33, 18, 1), 0.25, np.float32), 3)
    np.testing.assert_array_equal(top, 0.25)
    assert not any(detail.any() for detail in details)


def test_a_point_spreads_by_one_four_six_four_one():
    image = np.zeros((9, 9, 1), np.float32)
    image[4, 4] = 256
    np.testing.assert_array_equal(halved(image)[1:4, 1:4, 0], np.outer([1, 6, 1], [1, 6, 1]))
    small = np.zeros((5, 5, 1), np.float32)
    small[2, 2] = 64
    np.testing.assert_array_equal(doubled(small, (9, 9))[2:7, 2:7, 0], np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]))
