"""Checkpoints: exact, safe while training goes on, blind to what a killed process left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.path import async_path

from asccl_jax.train.checkpoint import Checkpoints, config_differences
from asccl_jax.train.sharding import data_mesh, replicated
from asccl_jax.types import TrainState


@pytest.fixture
def state():
    params = {"w": jnp.arange(200_000.0), "b": jnp.zeros((), jnp.bfloat16)}
    state = TrainState(jnp.asarray(3), params, {"mean": jnp.ones(2)}, (jnp.zeros(2),), jax.random.key(5))
    return jax.device_put(state, replicated(data_mesh(8)))


def save(checkpoints, step, state, *, config=None):
    checkpoints.save(step, state, data={"next_index": step}, config=config or {}, progress={"best_step": None})


def restore(checkpoints, state, *, config=None):
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    return checkpoints.restore(like, config=config or {}, sharding=replicated(data_mesh(8)))


def test_everything_comes_back_exactly_also_the_typed_key(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert restore(checkpoints, state) is None
    save(checkpoints, 3, state)
    checkpoints.close()
    restored = restore(Checkpoints(tmp_path, keep=2), state)
    assert (restored.data, restored.progress) == ({"next_index": 3}, {"best_step": None})
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(restored.state), strict=True):
        assert old.dtype == new.dtype
        assert bool(jnp.all(old == new))


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path, state):
    advance = jax.jit(lambda old: jax.tree.map(lambda leaf: leaf, old.replace(params=old.params)), donate_argnums=0)
    overwrite = jax.jit(lambda old: old.replace(params={**old.params, "w": old.params["w"] * 0 - 1}), donate_argnums=0)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    checkpoints = Checkpoints(tmp_path, keep=2)
    state = advance(state)
    save(checkpoints, 1, state)
    for _ in range(5):
        state = overwrite(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    np.testing.assert_array_equal(restore(checkpoints, like).state.params["w"], np.arange(200_000.0))


def test_a_file_that_goes_while_unfinished_saves_are_removed_does_no_harm(tmp_path, state, monkeypatch):
    remove, removed = async_path.rmtree, []

    async def gone(path, **options):
        removed.append(path)
        if len(removed) == 1:
            raise FileNotFoundError(f"{path}/manifest.ocdbt.__lock")
        await remove(path, **options)

    monkeypatch.setattr(async_path, "rmtree", gone)
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1, state)
    checkpoints.close()
    assert len(removed) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert restore(Checkpoints(tmp_path, keep=2), state).data == {"next_index": 1}


def test_what_a_killed_save_left_is_ignored_and_removed(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1, state)
    checkpoints.close()
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    (unfinished / "state").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest_step() == 1
    save(checkpoints, 2, state)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert restore(Checkpoints(tmp_path, keep=2), state).data == {"next_index": 2}


def test_only_entries_that_change_the_run_count_as_differences():
    saved = {"steps": 10, "seed": 1, "data": {"dir": "a", "pairing": "aligned"}, "model": {"widths": [1, 2]}, "old": 1}
    same = {**saved, "steps": 20, "data": {"dir": "b", "pairing": "aligned"}, "model": {"widths": (1, 2)}, "new": 1}
    assert config_differences(saved, same) == []
    other = {**same, "seed": 2, "data": {"dir": "b", "pairing": "mispaired"}}
    assert config_differences(saved, other) == [
        "config.data.pairing was 'aligned', now 'mispaired'",
        "config.seed was 1, now 2",
    ]


def test_the_length_of_a_run_is_fixed_where_its_learning_rate_falls_with_it():
    saved = {"steps": 10, "learning_rate_schedule": "cosine"}
    assert config_differences(saved, {**saved, "steps": 20}) == ["config.steps was 10, now 20"]
