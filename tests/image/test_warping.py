from pathlib import Path

import numpy as np
import pytest

from asccl_jax.image import warping
from asccl_jax.image.warping import (
    inverse_affine,
    joined,
    moved,
    resize_lanczos,
    resize_linear,
    resize_nearest,
    similarity,
    warp_lanczos,
    warp_linear,
    warp_nearest,
)

RNG = np.random.default_rng(1)


def test_a_map_and_its_inverse_cancel():
    matrix = RNG.standard_normal((2, 3))
    np.testing.assert_allclose(joined(matrix, inverse_affine(matrix)), np.eye(2, 3), atol=1e-12)


def test_points_moved_by_two_maps_are_moved_by_both_joined():
    first, second = RNG.standard_normal((2, 2, 3))
    points = RNG.standard_normal((5, 2))
    np.testing.assert_allclose(moved(points, joined(second, first)), moved(moved(points, first), second), atol=1e-12)


def test_each_set_of_points_has_its_own_map():
    matrices = np.array([[[1, 0, 5], [0, 1, -2]], [[0, -1, 0], [1, 0, 0]]], np.float64)
    points = np.array([[[1, 2], [3, 4]], [[1, 2], [3, 4]]])
    np.testing.assert_array_equal(moved(points, matrices), [[[6, 0], [8, 2]], [[-2, 1], [-4, 3]]])


RESIZE_RNG = np.random.default_rng(0)


def test_the_same_size_is_a_copy():
    image = RESIZE_RNG.random((7, 9, 3)).astype(np.float32)
    same = resize_lanczos(image, (7, 9))
    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_one_value_stays_one_value_up_to_the_border():
    resized = resize_lanczos(np.full((9, 11, 2), 200, np.uint8), (31, 17))
    assert resized.shape == (31, 17, 2)
    assert (resized == 200).all()


def test_a_slope_stays_a_slope_inside():
    slope = np.broadcast_to(np.arange(40, dtype=np.float32)[None, :, None], (6, 40, 1))
    doubled = resize_lanczos(np.ascontiguousarray(slope), (6, 80))[0, :, 0]
    # Half-pixel centres; a windowed sinc has ripples of 1.5 % of a sample's step, OpenCV's too.
    np.testing.assert_allclose(doubled[16:-16], (np.arange(80)[16:-16] + 0.5) / 2 - 0.5, atol=0.02)


def test_nearest_repeats_and_drops_whole_pixels():
    mask = RESIZE_RNG.random((4, 5)) > 0.5
    large = resize_nearest(mask, (12, 15))
    np.testing.assert_array_equal(large, np.kron(mask, np.ones((3, 3), bool)))
    np.testing.assert_array_equal(resize_nearest(large, (4, 5)), mask)


def test_linear_is_the_weighted_mean_of_two_neighbours_each_way():
    image = RESIZE_RNG.random((5, 7, 2)).astype(np.float32)
    resized = resize_linear(image, (11, 4))
    for row in range(11):
        for column in range(4):
            y, x = ((place + 0.5) * ratio - 0.5 for place, ratio in ((row, 5 / 11), (column, 7 / 4)))
            across = [np.interp(x, np.arange(7), line) for line in image.transpose(2, 0, 1).reshape(-1, 7)]
            expected = [np.interp(y, np.arange(5), values) for values in np.reshape(across, (2, 5))]
            np.testing.assert_allclose(resized[row, column], expected, atol=1e-6)
    np.testing.assert_array_equal(resize_linear(image, (5, 7)), image)


GOLDEN = Path(__file__).parents[1] / "goldens" / "postprocess_small.npz"
POINTS = np.random.default_rng(0).normal(100, 40, (68, 2))
TURN = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])


def test_a_known_similarity_is_found():
    matrix = similarity(POINTS, 1.7 * POINTS @ TURN.T + [3, -8])
    np.testing.assert_allclose(matrix[:2, :2], 1.7 * TURN, atol=1e-12)
    np.testing.assert_allclose(matrix[:2, 2], [3, -8], atol=1e-10)
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])


def test_without_scale_it_turns_and_shifts_alone():
    matrix = similarity(POINTS, 1.7 * POINTS @ TURN.T + [3, -8], scale=False)
    np.testing.assert_allclose(matrix[:2, :2], TURN, atol=1e-12)
    middle = POINTS.mean(axis=0)
    np.testing.assert_allclose(matrix[:2] @ [*middle, 1], 1.7 * TURN @ middle + [3, -8], atol=1e-10)


def test_mirrored_points_are_not_mirrored_back():
    matrix = similarity(POINTS * [-1, 1], POINTS)[:2, :2]
    assert np.linalg.det(matrix) > 0
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2) * np.linalg.det(matrix), atol=1e-12)


def test_points_that_are_all_one_have_none():
    assert np.isnan(similarity(np.ones((5, 2)), POINTS[:5])).all()


@pytest.mark.parametrize(
    ("case", "scale"),
    [*((f"umeyama{number}", scale) for number in range(3) for scale in (True, False)), ("umeyama_rank1", True)],
)
def test_published_alignments_are_met(case, scale):
    with np.load(GOLDEN) as golden:
        name = f"f64/{case}/{'T' if scale else 'T_noscale'}"
        source, target, expected = golden[f"f64/{case}/src"], golden[f"f64/{case}/dst"], golden[name]
    # Both are float64; the singular values of a thin set of points carry a few more roundings.
    np.testing.assert_allclose(similarity(source, target, scale=scale), expected, atol=1e-9, rtol=1e-9)


WARP_RNG = np.random.default_rng(0)
IMAGE = WARP_RNG.integers(0, 256, (40, 50, 3)).astype(np.uint8)
WARP_TURN = np.array([[1.1 * np.cos(0.3), -1.1 * np.sin(0.3), 6.25], [1.1 * np.sin(0.3), 1.1 * np.cos(0.3), -7.5]])


@pytest.mark.parametrize("draw", [warp_lanczos, warp_linear, warp_nearest])
def test_a_shift_by_whole_pixels_moves_every_pixel_and_leaves_black(draw):
    shifted = draw(IMAGE, np.array([[1.0, 0, 7], [0, 1.0, -3]]), (40, 50))
    np.testing.assert_array_equal(shifted[:37, 7:], IMAGE[3:, :-7])
    assert not shifted[37:].any()
    assert not shifted[:, :7].any()


@pytest.mark.parametrize("draw", [warp_lanczos, warp_linear, warp_nearest])
def test_the_inverse_flag_takes_the_map_back(draw):
    there = draw(IMAGE, WARP_TURN, (45, 55))
    assert there.shape == (45, 55, 3)
    np.testing.assert_array_equal(draw(IMAGE, warping.inverse_affine(WARP_TURN), (45, 55), inverse=True), there)


def test_there_and_back_a_smooth_picture_is_itself():
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    image = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1).astype(np.float32)
    back = warp_lanczos(warp_lanczos(image, WARP_TURN, (96, 96)), WARP_TURN, (64, 64), inverse=True)
    # Two roundings to 1/32 of a pixel at a slope of at most 1/7.
    assert np.abs(back - image)[24:40, 24:40].max() < 2 * np.sqrt(2) / 64 / 7 * 1.5


def test_one_value_stays_one_value_inside():
    flat = np.full((30, 30, 1), 0.7, np.float32)
    # The weights of each place add up to 1 within float32.
    np.testing.assert_allclose(warp_lanczos(flat, WARP_TURN / 1.1, (30, 30))[12:18, 12:18], 0.7, atol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 1.0, 7.0])
def test_tiles_leave_no_trace(scale, monkeypatch):
    matrix = scale * WARP_TURN
    wide = np.tile(IMAGE, (6, 5, 1))
    tiled = warp_lanczos(wide, matrix, (90, 100))
    monkeypatch.setattr(warping, "_TILE", 10**6)
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
