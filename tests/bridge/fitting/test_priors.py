import numpy as np
import pytest

from DECA_torch_bridge.fitting.block_banded import NormalEquations
from DECA_torch_bridge.fitting.landmark_head import LandmarkHead, build_landmark_head
from DECA_torch_bridge.fitting.landmark_tables import load_table
from DECA_torch_bridge.fitting.priors import PriorSettings, ShapePrior, StatePrior
from DECA_torch_bridge.head_assets import builtin_assets


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
