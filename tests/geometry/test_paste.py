import numpy as np
import pytest

from asccl_jax.geometry.paste import paste

FRAME = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)


def test_a_picture_comes_back_into_its_box_and_touches_nothing_else():
    picture = FRAME[5:25, 8:30] / np.float32(255)
    np.testing.assert_array_equal(paste(FRAME, picture, (8, 5, 30, 25)), FRAME)
    white = paste(FRAME, np.ones_like(picture), (8, 5, 30, 25))
    assert (white[5:25, 8:30] == 255).all()
    changed = (white != FRAME).any(axis=-1)
    changed[5:25, 8:30] = False
    assert not changed.any()


def test_values_are_cut_off_and_rounded():
    picture = np.full((1, 4, 3), np.float32([-0.5, 0.499 / 255, 0.501 / 255, 1.5])[None, :, None], np.float32)
    np.testing.assert_array_equal(paste(FRAME, picture, (0, 0, 4, 1))[0, :4, 0], [0, 0, 1, 255])


def test_what_lies_beyond_the_frame_is_cut_off():
    levels = np.arange(6 * 8, dtype=np.float32).reshape(6, 8, 1) / np.float32(255)
    pasted = paste(np.zeros_like(FRAME), np.repeat(levels, 3, axis=2), (-3, -2, 5, 4))
    np.testing.assert_array_equal(pasted[:4, :5, 0], np.arange(48).reshape(6, 8)[2:, 3:])
    assert not pasted[4:].any()
    assert not pasted[:, 5:].any()


@pytest.mark.parametrize("box", [(50, 0, 60, 10), (5, 5, 5, 9), (-20, 3, -1, 9)])
def test_a_box_without_pixels_leaves_the_frame(box):
    pasted = paste(FRAME, np.ones((4, 4, 3), np.float32), box)
    np.testing.assert_array_equal(pasted, FRAME)
    assert pasted is not FRAME
