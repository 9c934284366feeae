import dataclasses

import numpy as np
import pytest

from data_prep.head_fit.head_assets import builtin_assets
from data_prep.head_fit.landmark_tables import load_table
from data_prep.head_fit.projection import LandmarkHead, build_landmark_head, contour_normals, head_rotations, project


@pytest.fixture(scope="module")
def head() -> LandmarkHead:
    return build_landmark_head(builtin_assets(), load_table("synthetic"))


def _any_state(head: LandmarkHead, frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    states = 0.1 * rng.standard_normal((frames, 7 + head.expression_size))
    states[:, 0], states[:, 1:3] = np.log(900), 128
    return states, 0.5 * rng.standard_normal(head.identity_size)


def _flame_like(head: LandmarkHead) -> LandmarkHead:
    """The head with all that the built-in one has none of: correctives, joints that move, insets."""
    rng = np.random.default_rng(1)
    return dataclasses.replace(
        head,
        jaw_correctives=0.002 * rng.standard_normal(head.jaw_correctives.shape),
        joint_expression=0.002 * rng.standard_normal(head.joint_expression.shape),
        insets=rng.uniform(0, 0.004, 17),
    )


@pytest.mark.parametrize("kind", ["builtin", "flame-like"])
def test_derivatives_are_those_of_finite_differences(head: LandmarkHead, kind: str) -> None:
    if kind == "flame-like":
        head = _flame_like(head)
    states, shape = _any_state(head)
    sideways = np.broadcast_to([1.0, 0.0], (3, 17, 2))
    rough, _ = project(head, states, shape, sideways)
    normals = contour_normals(rough.points)
    at, slopes = project(head, states, shape, normals, derivatives=True)
    assert slopes is not None
    assert slopes.identity is not None

    def points(states: np.ndarray, shape: np.ndarray) -> np.ndarray:
        return project(head, states, shape, normals, support=at.support)[0].points

    step = 1e-6
    for column in range(states.shape[1]):
        change = step * (np.arange(states.shape[1]) == column)
        difference = (points(states + change, shape) - points(states - change, shape)) / (2 * step)
        # Central differences of float64 pixels: rounding leaves about 1e-13 / 1e-6 of 128 px.
        np.testing.assert_allclose(slopes.state[..., column], difference, rtol=0, atol=2e-6 * np.abs(difference).max())
    for column in range(0, len(shape), 9):
        change = step * (np.arange(len(shape)) == column)
        difference = (points(states, shape + change) - points(states, shape - change)) / (2 * step)
        np.testing.assert_allclose(
            slopes.identity[..., column], difference, rtol=0, atol=2e-6 * np.abs(difference).max() + 1e-6
        )


def test_rotations_of_a_zero_vector_and_of_a_quarter_turn() -> None:
    rotations, jacobians = head_rotations(np.array([[0.0, 0, 0], [0, 0, np.pi / 2]]))
    np.testing.assert_allclose(rotations[0], np.eye(3), atol=1e-15)
    np.testing.assert_allclose(jacobians[0], np.eye(3), atol=1e-15)
    np.testing.assert_allclose(rotations[1] @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_outline_candidates_are_symmetric_and_leave_the_neck_out(head: LandmarkHead) -> None:
    candidates = head.points[51:]
    chin = builtin_assets()
    corners = chin.v_template[chin.faces[chin.full_landmark_faces[8]]]
    assert candidates[:, 1].min() > corners[:, 1].min() - 0.002
    assert len(candidates) > 60
    assert abs(candidates[:, 0].min() + candidates[:, 0].max()) < 0.004


def test_landmarks_of_the_midline_lie_on_it(head: LandmarkHead) -> None:
    midline = np.array([27, 28, 29, 30, 33, 51, 57, 62, 66]) - 17
    np.testing.assert_allclose(head.points[midline, 0], 0, atol=2e-4)
