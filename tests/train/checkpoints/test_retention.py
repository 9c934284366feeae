"""Which step folders remain after a sequence of saves."""

import jax
import jax.numpy as jnp
import pytest

from asccl_jax.train.checkpoints.checkpoint import Checkpoints
from asccl_jax.train.checkpoints.retention import best_scored
from asccl_jax.types import TrainState


def any_state():
    return TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros(2)}, {}, (), jax.random.key(0))


def save_all(directory, steps, *, keep=2, keep_every=0, scores=None):
    """Saves at each step in turn, in one program, and returns the steps left on disk."""
    checkpoints = Checkpoints(directory, keep=keep, keep_every=keep_every)
    for step in steps:
        progress = {"score": (scores or {}).get(step)}
        checkpoints.save(step, any_state(), data={}, config={}, progress=progress)
    checkpoints.close()
    return sorted(int(path.name) for path in directory.iterdir())


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"keep": 1}, [7]),
        ({"keep": 3}, [5, 6, 7]),
        ({"keep_every": 3}, [3, 6, 7]),
        ({"keep_every": 100}, [6, 7]),
        ({"scores": {2: 0.5, 4: 0.2, 6: 0.3}}, [4, 6, 7]),
        ({"scores": {2: 0.2, 4: 0.2}}, [2, 6, 7]),
        ({"scores": {7: 0.1, 2: 0.2}}, [6, 7]),
        ({"keep": 1, "keep_every": 5, "scores": {1: -3.0}}, [1, 5, 7]),
    ],
)
def test_newest_every_so_many_and_the_best_remain(tmp_path, options, left):
    assert save_all(tmp_path, range(1, 8), **options) == left


def test_a_program_started_again_knows_the_scores_of_the_one_before(tmp_path):
    assert save_all(tmp_path, [1, 2, 3], scores={1: 0.1, 2: 0.9}) == [1, 2, 3]
    assert save_all(tmp_path, [4, 5], scores={4: 0.2}) == [1, 4, 5]
    assert save_all(tmp_path, [6, 7, 8], scores={7: 0.05}) == [7, 8]


def test_checkpoints_of_before_scores_were_noted_count_as_not_scored(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save(step, any_state(), data={}, config={}, progress={"best_step": 1, "best_score": 0.1})
    checkpoints.close()
    assert save_all(tmp_path, [3, 4], scores={3: 0.7}) == [3, 4]


def test_no_score_is_no_best():
    assert best_scored({}) is None
