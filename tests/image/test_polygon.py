"""Filled polygons, pixel by pixel; tests/bridge holds them against OpenCV itself."""

import numpy as np

from asccl_jax.image.polygon import polygon_mask


def test_polygon_holds_its_inside_and_its_outline():
    filled = polygon_mask(np.array([[2, 1], [6, 1], [6, 4], [2, 4]]), (6, 9))
    expected = np.zeros((6, 9), bool)
    expected[1:5, 2:7] = True
    np.testing.assert_array_equal(filled, expected)
    # By hand: the long side of this triangle crosses half pixels, which Bresenham's line from the left rounds back.
    triangle = polygon_mask(np.array([[0, 0], [4, 2], [0, 2]]), (3, 6))
    np.testing.assert_array_equal(triangle.astype(int), [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])


def test_polygons_beyond_the_picture_are_cut_off():
    inner = np.array([[2, 3], [9, 1], [12, 8], [4, 10]])
    whole = polygon_mask(inner + 20, (60, 60))
    np.testing.assert_array_equal(polygon_mask(inner - [5, 4], (8, 7)), whole[24:32, 25:32])
    assert not polygon_mask(inner - 40, (8, 7)).any()
