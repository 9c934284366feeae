"""Checkpoints: exact, safe while training goes on, blind to what a killed process left."""

import errno
import logging
import os
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.path import async_path

from asccl_jax.errors import InputError
from asccl_jax.train.checkpoints.checkpoint import Checkpoints, abandoned_io_unheard, best_scored, config_differences
from asccl_jax.train.sharding import data_mesh, replicated, split_over_data
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


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY])
def test_files_that_come_or_go_while_unfinished_saves_are_removed_do_no_harm(tmp_path, state, monkeypatch, number):
    remove, removed = async_path.rmtree, []

    async def gone(path, **options):
        removed.append(path)
        if len(removed) == 1:
            raise OSError(number, os.strerror(number), f"{path}/manifest.ocdbt.__lock")
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


def cut_short(folder, pattern):
    """Truncates the files of some name in a checkpoint: which of them holds what is up to the threads that wrote."""
    files = [path for path in folder.glob(pattern) if path.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "values cut short": lambda folder: cut_short(folder, "state/ocdbt.process_0/d/*"),
    "values missing": lambda folder: shutil.rmtree(folder / "state/ocdbt.process_0"),
    "index cut short": lambda folder: cut_short(folder, "state/manifest.ocdbt"),
    "index missing": lambda folder: (folder / "state/manifest.ocdbt").unlink(),
    "description of arrays cut short": lambda folder: cut_short(folder, "state/_METADATA"),
    "shardings cut short": lambda folder: cut_short(folder, "state/_sharding"),
    "position in the data missing": lambda folder: shutil.rmtree(folder / "data"),
    "config cut short": lambda folder: cut_short(folder, "config/metadata"),
    "nothing left": lambda folder: [shutil.rmtree(path) for path in folder.iterdir() if path.is_dir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_is_moved_aside_loudly_and_the_one_before_is_taken(tmp_path, state, caplog, damage):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        save(checkpoints, step, state)
    checkpoints.close()
    damage(tmp_path / "3")
    left = {path.relative_to(tmp_path / "3") for path in (tmp_path / "3").rglob("*")}

    checkpoints = Checkpoints(tmp_path, keep=3)
    with caplog.at_level(logging.WARNING, logger="asccl_jax"):
        restored = restore(checkpoints, state)
    assert restored.data == {"next_index": 2}
    np.testing.assert_array_equal(restored.state.params["w"], np.arange(200_000.0))
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("asccl_jax")]
    assert f"DAMAGED CHECKPOINT: {tmp_path / '3'} is damaged (" in warning
    assert (
        f"going on from checkpoint 2, 1 steps before; what is left of the damaged one is kept as {tmp_path}" in warning
    )
    assert "\n" not in warning
    assert {path.relative_to(tmp_path / "3.damaged") for path in (tmp_path / "3.damaged").rglob("*")} == left
    # The step is free again, and goes on to be one of the newest.
    save(checkpoints, 3, state)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "3.damaged"]
    assert restore(Checkpoints(tmp_path, keep=3), state).data == {"next_index": 3}


def test_where_all_are_damaged_nothing_is_moved_and_one_line_says_what_to_do(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        save(checkpoints, step, state)
    checkpoints.close()
    cut_short(tmp_path / "1", "state/manifest.ocdbt")
    shutil.rmtree(tmp_path / "2/data")
    with pytest.raises(InputError, match=r"2 is damaged \(data missing\); .*1 is damaged .*move them away") as error:
        restore(Checkpoints(tmp_path, keep=3), state)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_an_older_damaged_checkpoint_is_none_of_a_runs_business(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        save(checkpoints, step, state)
    checkpoints.close()
    shutil.rmtree(tmp_path / "1/state")  # as a removal leaves it that was killed
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert restore(checkpoints, state).data == {"next_index": 2}
    save(checkpoints, 3, state)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.write_text(""), "a file, where checkpoints are folders"),
        (lambda path: (path / "default").mkdir(parents=True), "it holds default, where a checkpoint of this program"),
    ],
)
def test_something_else_under_the_name_of_a_step_is_refused_in_one_line_and_left_alone(tmp_path, make, problem):
    make(tmp_path / "7")
    with pytest.raises(InputError, match=f"{tmp_path / '7'} is not a checkpoint of this program .{problem}") as error:
        Checkpoints(tmp_path, keep=2)
    assert "move it away, or give another --workdir" in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "7").exists()


def test_what_stands_in_no_ones_way_is_ignored_with_a_warning(tmp_path, state, caplog):
    (tmp_path / "checkpoint_1000").mkdir()
    (tmp_path / "model.pt").write_text("")
    (tmp_path / ".hidden").write_text("")
    with caplog.at_level(logging.WARNING, logger="asccl_jax"):
        checkpoints = Checkpoints(tmp_path, keep=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: ignored checkpoint_1000, model.pt, not from this program"
    ]
    for step in (1, 2):
        save(checkpoints, step, state)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "2", "checkpoint_1000", "model.pt"]


def test_the_restored_state_lies_where_a_tree_of_shardings_says(tmp_path, state):
    mesh = data_mesh(8)
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1, state)
    checkpoints.close()
    where = jax.tree.map(lambda _: replicated(mesh), state)
    where.params["w"] = split_over_data(mesh)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    restored = Checkpoints(tmp_path, keep=1).restore(like, config={}, sharding=where)
    assert restored.state.params["w"].sharding == split_over_data(mesh)
    assert restored.state.params["b"].sharding == replicated(mesh)
    np.testing.assert_array_equal(restored.state.params["w"], np.arange(200_000.0))


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


def given_up():
    error = Exception("Encountered error while reading array index")
    error.__cause__ = GeneratorExit()
    return error


@pytest.fixture
def heard(monkeypatch):
    """What reaches the hook that was there before."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: errors.append(unraisable.exc_value))
    return errors


def say(*errors):
    for error in errors:
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))


def test_after_a_failed_read_only_other_errors_are_heard(heard):
    others = [RuntimeError("another"), Exception("bare"), ValueError("x"), None]
    with pytest.raises(ValueError, match="damaged"), abandoned_io_unheard():
        raise ValueError("damaged")
    say(RuntimeError("Event loop is closed"), given_up(), *others)
    assert heard == others


def test_after_a_read_that_went_well_everything_is_heard_again(heard):
    with abandoned_io_unheard():
        say(RuntimeError("Event loop is closed"))
    late = RuntimeError("Event loop is closed")
    say(late)
    assert heard == [late]


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
