import numpy as np

from asccl_jax.geometry.resize import resize_lanczos, resize_linear, resize_nearest

RNG = np.random.default_rng(0)


def test_the_same_size_is_a_copy():
    image = RNG.random((7, 9, 3)).astype(np.float32)
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
    mask = RNG.random((4, 5)) > 0.5
    large = resize_nearest(mask, (12, 15))
    np.testing.assert_array_equal(large, np.kron(mask, np.ones((3, 3), bool)))
    np.testing.assert_array_equal(resize_nearest(large, (4, 5)), mask)


def test_linear_is_the_weighted_mean_of_two_neighbours_each_way():
    image = RNG.random((5, 7, 2)).astype(np.float32)
    resized = resize_linear(image, (11, 4))
    for row in range(11):
        for column in range(4):
            y, x = ((place + 0.5) * ratio - 0.5 for place, ratio in ((row, 5 / 11), (column, 7 / 4)))
            across = [np.interp(x, np.arange(7), line) for line in image.transpose(2, 0, 1).reshape(-1, 7)]
            expected = [np.interp(y, np.arange(5), values) for values in np.reshape(across, (2, 5))]
            np.testing.assert_allclose(resized[row, column], expected, atol=1e-6)
    np.testing.assert_array_equal(resize_linear(image, (5, 7)), image)
