"""Passes over parts of a batch: the update of one pass for every task and kind of `jit`, in less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from asccl_jax.errors import InputError
from asccl_jax.tasks import over_parts
from asccl_jax.train.sharding import data_mesh, distribute, place, sharded_update, state_sharding
from tests.tasks import test_manipulator_task as manipulator
from tests.tasks import test_metric_task as metric
from tests.tasks import test_renderer_task as renderer
from tests.tasks.tiny_sequences import chunk_of, sequences

QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same mathematics
TASKS = {"metric": metric.TASK, "manipulator": manipulator.TASK, "renderer": renderer.TASK}


def run(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(QUICK)(*arguments)


def layered(weights, rows, *, parts, layers=4, axis_name=None):
    """Loss, gradient and outputs of a few wide layers, whose activations are most of the memory."""

    def loss_of(weights, rows):
        hidden = rows
        for _ in range(layers):
            hidden = jnp.tanh(hidden @ weights)
        outputs = jnp.sum(hidden, axis=1)
        return jnp.mean(jnp.square(outputs)), outputs

    def one_pass(seen, rows):
        (loss, outputs), gradient = jax.value_and_grad(loss_of, has_aux=True)(weights, rows)
        return seen + rows.shape[0], (loss, gradient), outputs

    seen, means, outputs = over_parts(one_pass, jnp.zeros((), jnp.int32), rows, parts=parts)
    return seen, means if axis_name is None else lax.pmean(means, axis_name), outputs


@pytest.fixture(scope="module")
def numbers():
    random = np.random.default_rng(0)
    return tuple(jnp.asarray(random.normal(0, 0.3, shape), jnp.float32) for shape in ((16, 16), (32, 16)))


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("kind", ["jit", "sharded jit", "pmap"])
def test_means_carried_values_and_rows_are_those_of_one_pass(numbers, parts, kind):
    weights, rows = numbers
    expected = jax.jit(lambda w, x: layered(w, x, parts=1))(weights, rows)
    if kind == "jit":
        found = jax.jit(lambda w, x: layered(w, x, parts=parts))(weights, rows)
    elif kind == "sharded jit":
        mesh = data_mesh(32, accumulation=parts)
        found = jax.jit(lambda w, x: layered(w, x, parts=parts))(weights, place(rows, mesh))
    else:
        mapped = jax.pmap(
            lambda w, x: layered(w, x, parts=parts, axis_name="data"), axis_name="data", in_axes=(None, 0)
        )
        seen, means, outputs = mapped(weights, rows.reshape(8, 4, 16))
        found = seen.sum(), jax.tree.map(lambda leaf: leaf[0], means), outputs.reshape(32)
    assert int(found[0]) == int(expected[0]) == 32
    for a, b in zip(jax.tree.leaves(found[1:]), jax.tree.leaves(expected[1:]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # float32 sums of 32 rows in another order


def test_no_row_travels_between_devices_to_make_the_parts(numbers):
    mesh = data_mesh(32, accumulation=4)
    compiled = jax.jit(lambda w, x: layered(w, x, parts=4)).lower(numbers[0], place(numbers[1], mesh)).compile()
    program = compiled.as_text()
    assert "all-reduce" in program
    assert not any(kind in program for kind in ("all-to-all", "collective-permute", "all-gather"))


def test_memory_falls_with_the_parts():
    weights, rows = jnp.zeros((32, 32)), jnp.zeros((4096, 32))

    def temporary(parts):
        compiled = jax.jit(lambda w, x: layered(w, x, parts=parts, layers=16)).lower(weights, rows).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one, two, eight = (temporary(parts) for parts in (1, 2, 8))
    # Activations are 16 times as large as the rows; the copy of the rows in parts, and one of a part, stay.
    assert two < 0.65 * one
    assert eight < 0.3 * one


def test_one_part_is_the_plain_program(numbers):
    def direct(weights, rows):
        return layered(weights, rows, parts=1)

    assert "while" not in jax.jit(direct).lower(*numbers).as_text()


def test_rows_that_do_not_divide_and_counts_below_one_are_refused(numbers):
    with pytest.raises(InputError, match=r"accumulation=3 does not divide the 32 rows"):
        layered(*numbers, parts=3)
    for task in TASKS.values():
        with pytest.raises(InputError, match=r"config\.accumulation=0: expected at least 1"):
            dataclasses.replace(task, accumulation=0)


def in_columns(batch, parts):
    """The batch with the rows of part 0 first, then those of part 1 and so on."""
    return jax.tree.map(lambda rows: rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape), batch)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 4])
def test_the_manipulators_four_updates_stay_what_they_are(parts):
    state, batch = manipulator.TASK.init(jax.random.key(3)), manipulator.windows(4)
    expected = run(manipulator.TASK.update, state, batch)
    found = run(dataclasses.replace(manipulator.TASK, accumulation=parts).update, state, batch)
    assert manipulator.farthest(found[0].params, state.params) > 0.01
    # Float32 sums in another order, carried through four updates; see test_manipulator.py.
    manipulator.assert_trees_close(found[0].params, expected[0].params, atol=1e-5)
    manipulator.assert_trees_close(found[1], expected[1], atol=1e-5)


@pytest.mark.slow
def test_the_renderers_losses_are_taken_before_any_pass_moves_and_all_frames_are_kept():
    task = dataclasses.replace(renderer.TASK, sequences=4)
    state, whole = task.init(jax.random.key(3)), sequences(4)
    expected, found = (
        jax.jit(dataclasses.replace(task, accumulation=parts).update).lower(state, chunk_of(whole)).compile(QUICK)
        for parts in (1, 2)
    )
    # The second chunk goes on from the kept frames: a row in another's place would be another sequence.
    for number in range(2):
        batch = chunk_of(whole, number)
        one, two = expected(state, batch), found(state, batch)
        renderer.assert_moves_agree(two[0].params, one[0].params, state.params, within=0.01)
        renderer.assert_trees_close(two[1], one[1], atol=1e-3)
        renderer.assert_trees_close(two[0].batch_stats, one[0].batch_stats, atol=1e-3)
        state = one[0]


@pytest.fixture(scope="module")
def grouped():
    return dataclasses.replace(metric.TASK, settings=dataclasses.replace(metric.SETTINGS, bn_group_size=2))


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 4])
def test_the_metrics_update_is_that_of_one_pass_with_equal_groups_and_statistics_move_pass_by_pass(grouped, parts):
    state, batch = grouped.init(jax.random.key(3)), metric.pairs(8)
    task = dataclasses.replace(grouped, accumulation=parts)
    found = run(task.update, state, batch)
    ordered = in_columns(batch, parts)
    expected = run(grouped.update, state, ordered)
    taken = [jax.tree.map(jnp.subtract, state.params, after[0].params) for after in (found, expected)]
    # The same float32 sums in another order; see test_metric.py.
    metric.assert_trees_close(*taken, of_largest=1e-4)
    metric.assert_trees_close(found[1], expected[1], of_largest=1e-4)

    one_part = jax.jit(grouped.update).lower(state, metric.pairs(8 // parts)).compile(QUICK)
    statistics = state.batch_stats
    for part in range(parts):
        rows = jax.tree.map(lambda rows, part=part: rows.reshape(parts, -1, *rows.shape[1:])[part], ordered)
        statistics = one_part(state.replace(batch_stats=statistics), rows)[0].batch_stats
    metric.assert_trees_close(found[0].batch_stats, statistics, of_largest=1e-5)


@pytest.mark.slow
def test_the_metrics_passes_give_equal_updates_under_plain_jit_sharded_jit_and_pmap(grouped):
    task = dataclasses.replace(grouped, accumulation=2)
    state, batch, mesh = task.init(jax.random.key(3)), metric.pairs(32), data_mesh(32, accumulation=2)
    plain = run(task.update, state, batch)
    at = state_sharding(state, mesh)
    on_mesh = distribute(state, at), place(batch, mesh)
    compiled = sharded_update(mesh, at).lower(task, *on_mesh).compile(QUICK)
    assert not any(kind in compiled.as_text() for kind in ("all-to-all", "collective-permute"))
    sharded = compiled(task, *on_mesh)
    mapped = jax.pmap(lambda s, b: task.update(s, b, axis_name="data"), axis_name="data", in_axes=(None, 0))
    shares = jax.tree.map(lambda rows: rows.reshape(8, 4, *rows.shape[1:]), batch)
    pmapped = jax.tree.map(lambda leaf: leaf[0], mapped.lower(state, shares).compile(QUICK)(state, shares))
    for other in (sharded, pmapped):
        taken = [jax.tree.map(jnp.subtract, state.params, after[0].params) for after in (other, plain)]
        metric.assert_trees_close(*taken, of_largest=1e-3)
        metric.assert_trees_close(other[0].batch_stats, plain[0].batch_stats, of_largest=1e-5)
        metric.assert_trees_close(other[1], plain[1], of_largest=1e-4)
