from pathlib import Path

import numpy as np
import pytest

from asccl_jax.geometry.similarity import similarity

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
