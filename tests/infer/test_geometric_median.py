import numpy as np
import pytest
from scipy import optimize

from asccl_jax.infer.geometric_median import geometric_median


@pytest.mark.parametrize("count", [1, 2, 3, 8, 40])
def test_no_other_point_has_a_smaller_sum_of_distances(count):
    points = np.random.default_rng(count).normal(size=(count, 3))

    def total(point):
        return np.linalg.norm(points - point, axis=1).sum()

    best = optimize.minimize(total, points.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    # The last step is below 1e-5, and each point's distance changes by no more than that.
    assert total(geometric_median(points)) <= best.fun + 1e-5


def test_a_point_that_outweighs_the_others_is_the_median_itself():
    points = np.array([[0.0, 0.0]] * 5 + [[1.0, 0.0], [0.0, 1.0], [-3.0, 2.0]])
    np.testing.assert_allclose(geometric_median(points), [0, 0], atol=1e-4)


def test_a_start_on_data_points_does_not_stop_there():
    # The mean is itself a data point, which the plain iteration could never leave; the median lies elsewhere.
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-3.0, 0.0]])
    assert (points.mean(axis=0) == points[0]).all()
    np.testing.assert_allclose(geometric_median(points), [1, 0], atol=1e-3)


def test_equal_points_are_their_own_median_and_the_type_is_kept():
    points = np.full((4, 3), 0.1, np.float32)
    assert geometric_median(points).dtype == np.float32
    np.testing.assert_array_equal(geometric_median(points), points[0])
