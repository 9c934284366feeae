import numpy as np
import pytest

from asccl_jax.geometry import affine, warp
from asccl_jax.geometry.warp import warp_lanczos, warp_linear, warp_nearest

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 50, 3)).astype(np.uint8)
TURN = np.array([[1.1 * np.cos(0.3), -1.1 * np.sin(0.3), 6.25], [1.1 * np.sin(0.3), 1.1 * np.cos(0.3), -7.5]])


@pytest.mark.parametrize("draw", [warp_lanczos, warp_linear, warp_nearest])
def test_a_shift_by_whole_pixels_moves_every_pixel_and_leaves_black(draw):
    shifted = draw(IMAGE, np.array([[1.0, 0, 7], [0, 1.0, -3]]), (40, 50))
    np.testing.assert_array_equal(shifted[:37, 7:], IMAGE[3:, :-7])
    assert not shifted[37:].any()
    assert not shifted[:, :7].any()


@pytest.mark.parametrize("draw", [warp_lanczos, warp_linear, warp_nearest])
def test_the_inverse_flag_takes_the_map_back(draw):
    there = draw(IMAGE, TURN, (45, 55))
    assert there.shape == (45, 55, 3)
    np.testing.assert_array_equal(draw(IMAGE, affine.inverse(TURN), (45, 55), inverse=True), there)


def test_there_and_back_a_smooth_picture_is_itself():
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    image = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1).astype(np.float32)
    back = warp_lanczos(warp_lanczos(image, TURN, (96, 96)), TURN, (64, 64), inverse=True)
    # Two roundings to 1/32 of a pixel at a slope of at most 1/7.
    assert np.abs(back - image)[24:40, 24:40].max() < 2 * np.sqrt(2) / 64 / 7 * 1.5


def test_one_value_stays_one_value_inside():
    flat = np.full((30, 30, 1), 0.7, np.float32)
    # The weights of each place add up to 1 within float32.
    np.testing.assert_allclose(warp_lanczos(flat, TURN / 1.1, (30, 30))[12:18, 12:18], 0.7, atol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 1.0, 7.0])
def test_tiles_leave_no_trace(scale, monkeypatch):
    matrix = scale * TURN
    wide = np.tile(IMAGE, (6, 5, 1))
    tiled = warp_lanczos(wide, matrix, (90, 100))
    monkeypatch.setattr(warp, "_TILE", 10**6)
    whole = warp_lanczos(wide, matrix, (90, 100))
    # Equal but for the order in which a product of matrices adds.
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    assert (tiled != whole).mean() < 1e-3


def test_overshoot_is_cut_off_in_bytes_and_kept_in_numbers():
    edge = np.zeros((20, 20, 1), np.uint8)
    edge[:, 10:] = 255
    half = np.array([[1.0, 0, 0.5], [0, 1.0, 0]])
    bytes_ = warp_lanczos(edge, half, (20, 20))
    numbers = warp_lanczos(edge.astype(np.float32), half, (20, 20))
    assert numbers.min() < -5
    assert numbers.max() > 260
    np.testing.assert_array_equal(bytes_, np.clip(np.rint(numbers), 0, 255))


def test_a_picture_out_of_sight_is_black():
    far = np.array([[1.0, 0, 1e6], [0, 1.0, -1e6]])
    assert not warp_lanczos(IMAGE, far, (9, 8)).any()
    assert not warp_nearest(IMAGE[..., 0] > -1, far, (9, 8)).any()
