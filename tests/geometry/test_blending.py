import numpy as np
import pytest

from asccl_jax.geometry.blending import blend_pyramids, copy_paste, inner_mask

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
