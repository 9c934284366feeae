import numpy as np
import pytest

from asccl_jax.geometry.soft_erosion import erosion_kernel, soft_erosion

MASK = np.zeros((24, 30), np.float32)
MASK[:14, 6:22] = 1  # touches the upper border
MASK[16:18, 25:27] = 1


def surroundings(mask, size):
    """The weighted mean around each pixel, one by one."""
    radius, kernel = size // 2, erosion_kernel(size)
    padded = np.pad(mask, radius)
    return np.array(
        [[(padded[y : y + size, x : x + size] * kernel).sum() for x in range(mask.shape[1])] for y in range(len(mask))]
    )


@pytest.mark.parametrize("iterations", [1, 3])
def test_erosion_is_the_mean_of_the_surroundings_thresholded(iterations):
    share = MASK
    for _ in range(iterations - 1):
        share = np.minimum(share, surroundings(share, 7))
    share = surroundings(share, 7)
    hard = share >= 0.6
    assert 0 < hard.sum() < MASK.sum()
    eroded = soft_erosion(MASK, size=7, threshold=0.6, iterations=iterations)
    np.testing.assert_array_equal(eroded.hard, hard)
    # Shares of 1 in float32.
    np.testing.assert_allclose(eroded.soft, np.where(hard, 1, share / share[~hard].max()), atol=1e-6)


def test_kernel_is_a_cone_that_ends_at_the_corners():
    kernel = erosion_kernel(5)
    assert kernel[0, 0] == kernel[4, 0] == 0
    np.testing.assert_allclose(kernel.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(kernel[2, 2] - kernel[2, 1], kernel[2, 1] - kernel[2, 0], atol=1e-7)


def test_a_mask_gets_smaller_and_never_larger():
    hard = soft_erosion(MASK, size=9, threshold=0.8).hard
    assert hard.any()
    assert not (hard & (MASK == 0)).any()
    assert not hard[0].any()  # beyond the picture there is no mask


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_have_no_not_a_number(value):
    eroded = soft_erosion(np.full((8, 8), value), size=3, threshold=0.3)
    np.testing.assert_array_equal(eroded.hard, bool(value))
    np.testing.assert_array_equal(eroded.soft, value)
