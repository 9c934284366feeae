import numpy as np
import pytest

from asccl_jax.image.blending import (
    blend_pyramids,
    copy_paste,
    doubled,
    erosion_kernel,
    gaussian_pyramid,
    halved,
    inner_mask,
    laplacian_pyramid,
    rebuilt,
    soft_erosion,
)

RNG = np.random.default_rng(0)
BACKGROUND = RNG.random((96, 80, 3)).astype(np.float32)
FACE = RNG.random((96, 80, 3)).astype(np.float32)
MASK = np.zeros((96, 80), np.float32)
MASK[20:76, 16:64] = 1


def test_a_face_that_is_the_picture_changes_nothing():
    blended = blend_pyramids(BACKGROUND, BACKGROUND, MASK)
    np.testing.assert_allclose(blended, BACKGROUND, atol=1e-6)  # float32


@pytest.mark.parametrize(("value", "expected"), [(0, BACKGROUND), (1, FACE)])
def test_an_empty_mask_gives_the_picture_and_a_full_one_the_face(value, expected):
    blended = blend_pyramids(BACKGROUND, FACE, np.full_like(MASK, value))
    pasted = copy_paste(BACKGROUND, FACE, np.full_like(MASK, value))
    np.testing.assert_array_equal(pasted, expected)
    inside = blended[40:56, 32:48] if value else blended  # the mask is drawn back from the picture's border
    if value:
        # Coarse levels still mix: what is left of the background is a small shift of light.
        assert np.abs(inside - expected[40:56, 32:48]).std() < 0.02
    else:
        np.testing.assert_allclose(inside, expected, atol=1e-6)  # float32


def test_the_seam_is_soft_where_copying_makes_a_step():
    dark, bright = np.zeros_like(BACKGROUND), np.ones_like(BACKGROUND)
    steps = [np.abs(np.diff(blend(dark, bright, MASK), axis=1)).max() for blend in (blend_pyramids, copy_paste)]
    assert steps[1] == 1
    assert steps[0] < 0.2


def test_copied_levels_keep_the_light_of_the_picture():
    brighter = BACKGROUND + np.float32(0.5)
    kept = blend_pyramids(BACKGROUND, brighter, MASK, copied_levels=1)
    np.testing.assert_allclose(kept, BACKGROUND, atol=1e-6)  # float32: a shift of light lies in the coarsest level
    changed = blend_pyramids(BACKGROUND, brighter, MASK)
    assert np.abs(changed - BACKGROUND).max() > 0.3


def test_smaller_faces_and_masks_are_brought_to_size():
    small = np.full((48, 40, 3), 0.5, np.float32)
    large = np.full((96, 80, 3), 0.5, np.float32)
    for blend in (blend_pyramids, copy_paste):
        # A flat face is flat at any size, within float32.
        np.testing.assert_allclose(blend(BACKGROUND, small, MASK[::2, ::2]), blend(BACKGROUND, large, MASK), atol=1e-6)


@pytest.mark.parametrize(("height", "size"), [(256, 33), (144, 19), (72, 9)])
def test_the_rim_that_is_left_out_grows_with_the_picture(height, size):
    mask = np.zeros((height, height))
    mask[:, height // 4 :] = 1
    lost = np.flatnonzero(inner_mask(mask)[height // 2])[0] - height // 4
    assert 0 < lost < size // 2


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


EROSION_MASK = np.zeros((24, 30), np.float32)
EROSION_MASK[:14, 6:22] = 1  # touches the upper border
EROSION_MASK[16:18, 25:27] = 1


def surroundings(mask, size):
    """The weighted mean around each pixel, one by one."""
    radius, kernel = size // 2, erosion_kernel(size)
    padded = np.pad(mask, radius)
    return np.array(
        [[(padded[y : y + size, x : x + size] * kernel).sum() for x in range(mask.shape[1])] for y in range(len(mask))]
    )


@pytest.mark.parametrize("iterations", [1, 3])
def test_erosion_is_the_mean_of_the_surroundings_thresholded(iterations):
    share = EROSION_MASK
    for _ in range(iterations - 1):
        share = np.minimum(share, surroundings(share, 7))
    share = surroundings(share, 7)
    hard = share >= 0.6
    assert 0 < hard.sum() < EROSION_MASK.sum()
    eroded = soft_erosion(EROSION_MASK, size=7, threshold=0.6, iterations=iterations)
    np.testing.assert_array_equal(eroded.hard, hard)
    # Shares of 1 in float32.
    np.testing.assert_allclose(eroded.soft, np.where(hard, 1, share / share[~hard].max()), atol=1e-6)


def test_kernel_is_a_cone_that_ends_at_the_corners():
    kernel = erosion_kernel(5)
    assert kernel[0, 0] == kernel[4, 0] == 0
    np.testing.assert_allclose(kernel.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(kernel[2, 2] - kernel[2, 1], kernel[2, 1] - kernel[2, 0], atol=1e-7)


def test_a_mask_gets_smaller_and_never_larger():
    hard = soft_erosion(EROSION_MASK, size=9, threshold=0.8).hard
    assert hard.any()
    assert not (hard & (EROSION_MASK == 0)).any()
    assert not hard[0].any()  # beyond the picture there is no mask


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_have_no_not_a_number(value):
    eroded = soft_erosion(np.full((8, 8), value), size=3, threshold=0.3)
    np.testing.assert_array_equal(eroded.hard, bool(value))
    np.testing.assert_array_equal(eroded.soft, value)
