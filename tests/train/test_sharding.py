"""The split of a state over devices: the same numbers whatever the split, and a share of the memory."""

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from asccl_jax.errors import InputError
from asccl_jax.metrics_file import read_metrics
from asccl_jax.train import sharding
from asccl_jax.train.loop import fit
from asccl_jax.train.sharding import (
    bytes_a_device,
    data_mesh,
    distribute,
    gather_whole,
    place,
    process_by_process,
    sharded_update,
    state_sharding,
)
from tests.tasks.test_manipulator_task import QUICK, TASK, assert_trees_close, farthest, windows
from tests.train.toy import experiment

WIDTH = 8


@pytest.fixture
def split_everything(monkeypatch):
    """Splits toys as large arrays would be."""
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 8)


def shape(*lengths, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(lengths, dtype)


def test_the_rule_is_the_longest_axis_that_divides_and_whole_copies_of_the_rest():
    mesh = data_mesh(8, fsdp=4)
    large = sharding.SMALLEST_SPLIT
    state = {
        "kernel": shape(3, 3, 128, 256),
        "square": shape(512, 512),
        "rows": shape(large, 3),
        "odd": shape(large + 1, 3),
        "longest does not divide": shape(large + 1, 8),
        "small": shape(large - 4),
        "large enough": shape(large),
        "scalar": shape(),
        "key": jax.eval_shape(lambda: jax.random.split(jax.random.key(0), large)),
    }
    found = {name: placed.spec for name, placed in state_sharding(state, mesh).items()}
    whole = PartitionSpec()
    assert found == {
        "kernel": PartitionSpec(None, None, None, "fsdp"),
        "square": PartitionSpec(None, "fsdp"),
        "rows": PartitionSpec("fsdp"),
        "odd": whole,
        "longest does not divide": PartitionSpec(None, "fsdp"),
        "small": whole,
        "large enough": PartitionSpec("fsdp"),
        "scalar": whole,
        "key": whole,
    }
    unsplit = state_sharding(state, data_mesh(8))
    assert all(placed.is_fully_replicated for placed in unsplit.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fsdp": 3}, r"config\.fsdp=3 does not divide 8 devices"),
        ({"fsdp": 0}, r"config\.fsdp=0: expected at least 1"),
        ({"accumulation": 0}, r"config\.accumulation=0: expected at least 1"),
        ({"accumulation": 4}, r"batch_size=16 does not divide over 8 devices times config\.accumulation=4"),
    ],
)
def test_what_does_not_divide_is_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        data_mesh(16, **arguments)


@pytest.mark.parametrize("fsdp", [1, 2, 4, 8])
def test_a_device_holds_its_share_and_gathering_gives_all_back(fsdp):
    mesh = data_mesh(8, fsdp=fsdp)
    random = np.random.default_rng(0)
    tree = {
        "kernel": random.normal(size=(3, 3, 64, 64)).astype(np.float32),
        "bias": random.normal(size=(64,)).astype(np.float32),
        "key": jax.random.key(3),
    }
    split = distribute(tree, state_sharding(tree, mesh))
    # The kernel is split; 64 numbers of the bias and the key's two words are not.
    assert bytes_a_device(split) == 4 * (3 * 3 * 64 * 64 // fsdp + 64 + 2)
    whole = gather_whole(split, mesh)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(whole))
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(whole[name], tree[name])
    assert bool(jnp.all(whole["key"] == tree["key"]))


def test_rows_of_a_process_stay_together_whatever_the_wiring():
    wired = [SimpleNamespace(process_index=process, id=number) for number, process in enumerate((1, 0, 0, 2, 1, 2))]
    assert [device.id for device in process_by_process(wired)] == [1, 2, 0, 4, 3, 5]
    assert data_mesh(8, fsdp=2).devices.flatten().tolist() == jax.devices()


def trained(task, batches, fsdp):
    """State and scalars after some steps with a split state, the state as the devices hold it."""
    mesh = data_mesh(16, fsdp=fsdp)
    begun = task.init(jax.random.key(3))
    at = state_sharding(begun, mesh)
    state = distribute(begun, at)
    update = sharded_update(mesh, at).lower(task, state, place(batches[0], mesh)).compile(QUICK)
    for batch in batches:
        state, scalars = update(task, state, place(batch, mesh))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == at
    return state, scalars


@pytest.fixture(scope="module")
def unsplit():
    return trained(TASK, [windows(16, seed) for seed in range(2)], 1)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [2, 8])
def test_a_manipulators_steps_do_not_depend_on_the_split(unsplit, fsdp, split_everything):
    state, scalars = trained(TASK, [windows(16, seed) for seed in range(2)], fsdp)
    moved = farthest(jax.device_get(state.params), TASK.init(jax.random.key(3)).params)
    assert moved > 0.01
    # Sums over devices are taken in another order, twice in a row through four updates; see test_manipulator.py.
    assert_trees_close(state.params, unsplit[0].params, atol=2e-5)
    assert_trees_close(scalars, unsplit[1], atol=2e-5)
    small = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params) if leaf.is_fully_replicated)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert small < 0.2 * total
    assert bytes_a_device(state.params) == small + (total - small) // fsdp


def run(workdir, steps, **settings):
    made = experiment(steps=steps, width=WIDTH, **settings)
    made.config.update(settings)
    return fit(made, workdir)


def logged(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("speed/")} for line in lines]


def assert_equal_runs(found, expected):
    """Within float32 sums of eight rows, taken in another order."""
    assert [line.keys() for line in logged(found)] == [line.keys() for line in logged(expected)]
    for line, other in zip(logged(found), logged(expected), strict=True):
        np.testing.assert_allclose(list(line.values()), list(other.values()), rtol=1e-5)
    for name in ("initial", "best", "last"):
        first, second = (json.loads((workdir / name / "w.json").read_text()) for workdir in (found, expected))
        assert first["step"] == second["step"]
        np.testing.assert_allclose(first["w"], second["w"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fsdp", [2, 4, 8])
def test_a_run_with_a_split_state_scores_saves_and_exports_what_one_without_does(tmp_path, fsdp, split_everything):
    run(tmp_path / "whole", 6)
    run(tmp_path / "split", 6, fsdp=fsdp)
    assert_equal_runs(tmp_path / "split", tmp_path / "whole")


@pytest.mark.parametrize(("before", "after"), [(8, 2), (1, 4), (4, 1)])
def test_a_checkpoint_goes_on_with_another_split(tmp_path, before, after, split_everything):
    run(tmp_path / "straight", 8)
    run(tmp_path / "parts", 4, fsdp=before)
    run(tmp_path / "parts", 8, fsdp=after)
    assert_equal_runs(tmp_path / "parts", tmp_path / "straight")


def test_the_toys_state_is_really_split(split_everything):
    mesh = data_mesh(8, fsdp=4)
    state = experiment(steps=1, width=WIDTH).task.init(jax.random.key(0))
    split = distribute(state, state_sharding(state, mesh))
    moments = [leaf for leaf in jax.tree.leaves((split.params, split.opt_state)) if leaf.shape == (WIDTH,)]
    assert len(moments) == 3  # weights and the two moments of Adam
    assert all(math.prod(leaf.addressable_shards[0].data.shape) == WIDTH // 4 for leaf in moments)
