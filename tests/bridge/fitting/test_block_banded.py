import numpy as np
import pytest

from DECA_torch_bridge.fitting.block_banded import NormalEquations, SharedEquations, solve


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
