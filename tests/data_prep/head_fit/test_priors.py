import numpy as np
import pytest

from data_prep.head_fit.head_assets import builtin_assets
from data_prep.head_fit.landmark_tables import load_table
from data_prep.head_fit.priors import NormalEquations, PriorSettings, ShapePrior, SharedEquations, StatePrior, solve
from data_prep.head_fit.projection import LandmarkHead, build_landmark_head


def _dense(equations: NormalEquations) -> np.ndarray:
    frames, size = equations.gradient.shape
    matrix = np.zeros((frames * size, frames * size))
    for frame in range(frames):
        rows = slice(frame * size, (frame + 1) * size)
        matrix[rows, rows] = equations.blocks[frame]
        for ahead, entries in ((1, equations.next_frame), (2, equations.next_but_one)):
            if frame + ahead < frames:
                columns = slice((frame + ahead) * size, (frame + ahead + 1) * size)
                matrix[rows, columns] = matrix[columns, rows] = np.diag(entries[frame])
    return matrix


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_solution_is_that_of_the_dense_system(frames: int) -> None:
    rng = np.random.default_rng(frames)
    size, shared_size = 4, 3
    root = rng.standard_normal((frames, 9, size))
    blocks = root.transpose(0, 2, 1) @ root + 8 * np.eye(size)
    near, far = rng.uniform(-0.5, 0.5, (2, frames, size))
    near[-1:], far[-2:] = 0, 0
    equations = NormalEquations(blocks, near, far, rng.standard_normal((frames, size)))
    coupling = 0.3 * rng.standard_normal((frames, size, shared_size))
    shared = SharedEquations(coupling, 20 * np.eye(shared_size), rng.standard_normal(shared_size))
    flat = coupling.reshape(-1, shared_size)
    whole = np.block([[_dense(equations), flat], [flat.T, shared.block]])
    expected = -np.linalg.solve(whole, np.concatenate([equations.gradient.ravel(), shared.gradient]))
    step, shared_step = solve(equations, shared, damping=0.0)
    assert shared_step is not None
    # float64 elimination in another order.
    np.testing.assert_allclose(np.concatenate([step.ravel(), shared_step]), expected, rtol=0, atol=1e-10)
    alone, nothing = solve(equations, None, damping=0.0)
    assert nothing is None
    np.testing.assert_allclose(
        alone.ravel(), -np.linalg.solve(_dense(equations), equations.gradient.ravel()), rtol=0, atol=1e-10
    )


@pytest.fixture(scope="module")
def head() -> LandmarkHead:
    return build_landmark_head(builtin_assets(), load_table("synthetic"))


def _prior(head: LandmarkHead, frames: int, starts: tuple[int, ...] = (), **settings: float) -> StatePrior:
    neutral = np.arange(frames) < 2
    return StatePrior(
        head, PriorSettings(**settings), frames=frames, starts=starts, sigma_px=1.0, fps=30.0, neutral=neutral
    )


@pytest.mark.parametrize("starts", [(), (3,)])
def test_gradient_is_that_of_the_cost(head: LandmarkHead, starts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    frames = 7
    states = 0.3 * rng.standard_normal((frames, 7 + head.expression_size))
    prior = _prior(head, frames, starts, sparsity=0.0)  # its gradient is that of a smoothed absolute value
    size = states.shape[1]
    nothing = [np.zeros((frames, size)) for _ in range(3)]
    equations = NormalEquations(np.zeros((frames, size, size)), *nothing)
    prior.add_to(equations, states)
    for _ in range(6):
        way = rng.standard_normal(states.shape)
        slope = (prior.cost(states + 1e-6 * way) - prior.cost(states - 1e-6 * way)) / 2e-6
        np.testing.assert_allclose(2 * (equations.gradient * way).sum(), slope, rtol=1e-5)


def test_nothing_is_smooth_across_clips(head: LandmarkHead) -> None:
    states = np.zeros((8, 7 + head.expression_size))
    states[4:, 1] = 50  # pixels to the right in the second clip
    assert _prior(head, 8, (4,)).cost(states) == 0
    assert _prior(head, 8).cost(states) > 100


def test_size_and_frames_strengthen_the_shape_prior(head: LandmarkHead) -> None:
    along = head.size_slope / np.linalg.norm(head.size_slope)
    other = np.eye(len(along))[0] - along[0] * along
    other /= np.linalg.norm(other)
    prior = ShapePrior(head, PriorSettings(), frames=10)
    assert prior.cost(along) > 2 * prior.cost(other)
    assert ShapePrior(head, PriorSettings(), frames=100).cost(other) == pytest.approx(10 * prior.cost(other))
