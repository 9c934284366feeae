import numpy as np

from asccl_jax.geometry.affine import inverse, joined, moved

RNG = np.random.default_rng(1)


def test_a_map_and_its_inverse_cancel():
    matrix = RNG.standard_normal((2, 3))
    np.testing.assert_allclose(joined(matrix, inverse(matrix)), np.eye(2, 3), atol=1e-12)


def test_points_moved_by_two_maps_are_moved_by_both_joined():
    first, second = RNG.standard_normal((2, 2, 3))
    points = RNG.standard_normal((5, 2))
    np.testing.assert_allclose(moved(points, joined(second, first)), moved(moved(points, first), second), atol=1e-12)


def test_each_set_of_points_has_its_own_map():
    matrices = np.array([[[1, 0, 5], [0, 1, -2]], [[0, -1, 0], [1, 0, 0]]], np.float64)
    points = np.array([[[1, 2], [3, 4]], [[1, 2], [3, 4]]])
    np.testing.assert_array_equal(moved(points, matrices), [[[6, 0], [8, 2]], [[-2, 1], [-4, 3]]])
