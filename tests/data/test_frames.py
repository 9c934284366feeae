"""Strips of frames: each frame in its place."""

import numpy as np
import pytest

from asccl_jax.data.frames import difference_image, strip
from asccl_jax.errors import InputError


def test_frames_stand_in_their_rows_and_columns():
    frames = [np.full((3, 4, 3), 10 * number, np.uint8) for number in range(6)]
    picture = strip([frames[:3], frames[3:]])
    assert picture.shape == (8, 16, 3)
    assert [picture[y, x, 0] for y in (1, 6) for x in (1, 7, 13)] == [0, 10, 20, 30, 40, 50]
    assert (picture[3:5] == 255).all() and (picture[:, 4:6] == 255).all()


def test_differences_are_of_both_signs_and_never_wrap():
    dark, bright = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 30, np.uint8)
    assert (difference_image(dark, bright, gain=2) == 40).all() and (difference_image(bright, dark, gain=2) == 40).all()
    assert (difference_image(np.zeros_like(dark), np.full_like(dark, 200)) == 255).all()


@pytest.mark.parametrize("rows", [[], [[]], [[np.zeros((2, 2, 3), np.uint8)], []]])
def test_uneven_rows_are_refused(rows):
    with pytest.raises(InputError, match="as many in each"):
        strip(rows)
