"""The metric's update and evaluation: the published order of things, and one result on one device or many."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from asccl_jax.errors import InputError
from asccl_jax.losses import correlation_loss
from asccl_jax.models.correlation import CorrelationMetric, prepare_images
from asccl_jax.sampling import map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.metric_task import MetricTask
from asccl_jax.train.sharding import data_mesh, place, replicated, split_over_data
from asccl_jax.types import PairBatch
from tests.tasks.drawn import drawn_variables

SETTINGS = MetricSettings(
    stage_blocks=(1, 1, 1, 1),
    stage_widths=(16, 16, 16, 16),
    image_size=36,
    centre_counts=(8, 4, 2, 1),
    bn_group_size=None,
)
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same mathematics


# Plain descent: a step is the gradient itself, where Adam's first step is little more than its sign.
TASK = MetricTask(SETTINGS, optax.sgd(1.0), start=drawn_variables(SETTINGS))


def pairs(count, *, size=40, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (2, count, size, size, 3), dtype=np.uint8)
    return PairBatch(jnp.asarray(images[0]), jnp.asarray(images[1]), jnp.arange(count, dtype=jnp.int32))


def assert_trees_close(actual, expected, *, of_largest):
    """Every leaf agrees within a share of its largest entry: small entries of a gradient are sums that cancel."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        limit = of_largest * max(float(jnp.max(jnp.abs(b))), 1e-2)
        np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def state():
    return TASK.init(jax.random.key(3))


@pytest.fixture(scope="module")
def updated(state):
    update = jax.jit(TASK.update).lower(state, pairs(4)).compile(QUICK)
    first = update(state, pairs(4))
    second = update(first[0], pairs(4))
    return first, second, update(state, pairs(4))


def test_the_step_follows_the_query_branch_only_and_statistics_move_by_query_then_key(state, updated):
    batch, locations = pairs(4), locations_of(state)
    module = CorrelationMetric(SETTINGS)

    def features(params, batch_stats, image_u8):
        image = prepare_images(image_u8, SETTINGS)
        variables = {"params": params, "batch_stats": batch_stats}
        return module.apply(variables, image, train=True, method="features", mutable=["batch_stats"])

    def reference(params, batch_stats):
        # Written the long way: the key's maps are made first, as constants, so no gradient can pass through them.
        _, after_query = features(params, batch_stats, batch.query_image)
        key_maps, after_key = features(params, after_query["batch_stats"], batch.key_image)

        def loss_of(params):
            query_maps, _ = features(params, batch_stats, batch.query_image)

            def embed(level, disparities):
                return module.apply({"params": params}, level, disparities, method="embed")

            return correlation_loss(query_maps, lax.stop_gradient(key_maps), embed, locations, SETTINGS)[0]

        return jax.value_and_grad(loss_of)(params), after_key["batch_stats"]

    (loss, grads), statistics = (
        jax.jit(reference).lower(state.params, state.batch_stats).compile(QUICK)(state.params, state.batch_stats)
    )
    (new, scalars), _, _ = updated
    np.testing.assert_allclose(scalars["metric/loss"], loss, rtol=1e-6)
    assert_trees_close(new.batch_stats, statistics, of_largest=1e-5)
    taken = jax.tree.map(jnp.subtract, state.params, new.params)
    # Float32 through ten BatchNorms and a softmax at temperature 0.07, summed in another order.
    assert_trees_close(taken, grads, of_largest=1e-4)
    np.testing.assert_allclose(scalars["metric/gradient_norm"], optax.tree.norm(grads), rtol=1e-5)
    np.testing.assert_allclose(scalars["metric/weight_norm"], optax.tree.norm(new.params), rtol=1e-6)


def locations_of(state):
    key = jax.random.fold_in(state.key, state.step)
    return sample_locations(key, map_sizes(SETTINGS.image_size), SETTINGS.centre_counts, border=SETTINGS.border)


def test_a_step_repeats_exactly_and_the_next_draws_other_locations(state, updated):
    first, second, again = updated
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert bool(jnp.all(a == b))
    assert [int(s.step) for s, _ in (first, second)] == [1, 2]
    assert bool(jnp.all(first[0].key == state.key))
    one, two = locations_of(first[0]), locations_of(second[0])
    assert not np.array_equal(one[0], two[0])


def test_scalars_say_what_the_loss_is_made_of(updated):
    (_, scalars), _, _ = updated
    stages = [scalars[f"metric/nce_stage{stage}"] for stage in range(1, 5)]
    np.testing.assert_allclose(scalars["metric/nce"], sum(map(float, stages)), rtol=1e-6)
    assert {name.split("/")[0] for name in scalars} == {"metric"}
    assert all(value.shape == () and value.dtype == jnp.float32 for value in scalars.values())


@pytest.mark.slow
@pytest.mark.parametrize("group_size", [None, 2], ids=["global", "groups of 2"])
def test_plain_jit_sharded_jit_and_pmap_give_equal_updates(group_size):
    task = dataclasses.replace(TASK, settings=dataclasses.replace(SETTINGS, bn_group_size=group_size))
    state, batch, mesh = task.init(jax.random.key(3)), pairs(16), data_mesh(16)
    # One half brighter than the other: local statistics would differ much from global ones.
    batch = batch.replace(query_image=batch.query_image.at[8:].set(batch.query_image[8:] // 4))
    plain = jax.jit(task.update).lower(state, batch).compile(QUICK)(state, batch)

    on_mesh = (jax.device_put(state, replicated(mesh)), place(batch, mesh))
    shardings = {"in_shardings": (replicated(mesh), split_over_data(mesh)), "out_shardings": replicated(mesh)}
    sharded = jax.jit(task.update, **shardings).lower(*on_mesh).compile(QUICK)(*on_mesh)

    mapped = jax.pmap(lambda s, b: task.update(s, b, axis_name="data"), axis_name="data", in_axes=(None, 0))
    shares = jax.tree.map(lambda rows: rows.reshape(8, 2, *rows.shape[1:]), batch)
    pmapped = jax.tree.map(lambda leaf: leaf[0], mapped.lower(state, shares).compile(QUICK)(state, shares))

    assert np.isfinite(float(plain[1]["metric/loss"]))
    for other in (sharded, pmapped):
        # The same float32 sums in another order, see above; a local BatchNorm would be off by whole numbers.
        taken = [jax.tree.map(jnp.subtract, state.params, run[0].params) for run in (other, plain)]
        assert_trees_close(*taken, of_largest=1e-3)
        assert_trees_close(other[0].batch_stats, plain[0].batch_stats, of_largest=1e-5)
        assert_trees_close(other[1], plain[1], of_largest=1e-4)


@pytest.fixture(scope="module")
def settled(state):
    return TASK.settle_statistics(state, [pairs(4)])


@pytest.fixture(scope="module")
def evaluate(settled):
    compiled = jax.jit(TASK.evaluate).lower(settled, pairs(4)).compile(QUICK)
    return lambda batch: compiled(settled, batch)


def test_held_out_scores_are_each_pairs_own(evaluate):
    scores = evaluate(pairs(4))
    batch = pairs(4, seed=1)
    mixed = jax.tree.map(lambda kept, other: jnp.concatenate([kept[:2], other[2:]]), pairs(4), batch)
    for name, values in evaluate(mixed).items():
        # Running statistics: the company changes nothing but the order of sums in a matrix product.
        np.testing.assert_allclose(values[:2], scores[name][:2], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(evaluate(mixed)["eval/nce"][2:], scores["eval/nce"][2:])
    stages = sum(scores[f"eval/nce_stage{stage}"] for stage in range(1, 5))
    np.testing.assert_allclose(scores["eval/nce"], stages, rtol=1e-6)


def test_equal_images_are_retrieved_perfectly(evaluate):
    batch = pairs(4)
    scores = evaluate(batch.replace(key_image=batch.query_image))
    for stage in range(1, 5):
        np.testing.assert_array_equal(scores[f"eval/top1_stage{stage}"], 1.0)
        assert float(scores[f"eval/gap_stage{stage}"].min()) > 0


def test_settled_statistics_are_the_weighted_mean_of_what_the_batches_have(state, settled):
    stem = state.params["trunk"]["stem"]["conv"]["kernel"]
    means = []
    for image_u8 in (pairs(4).query_image, pairs(4).key_image):
        image = prepare_images(image_u8, SETTINGS)
        maps = lax.conv_general_dilated(image, stem, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        means.append(np.asarray(maps).mean(axis=(0, 1, 2)))
    expected = (0.9 * means[0] + means[1]) / 1.9  # the later batch weighs more, as in any exponential mean
    found = settled.batch_stats["trunk"]["stem"]["norm"]["mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # means of 5,000 values near zero
    assert settled.params is state.params


def test_weights_to_start_from_are_taken_and_another_networks_are_refused_entry_by_entry(state):
    start = {"params": state.params, "batch_stats": state.batch_stats}
    begun = MetricTask(SETTINGS, optax.sgd(1.0), start=jax.device_get(start)).init(jax.random.key(9))
    assert_trees_close(begun.params, state.params, of_largest=0)
    other = drawn_variables(dataclasses.replace(SETTINGS, stage_widths=(16, 16, 16, 24)))
    del other["params"]["heads"]["stage1"]
    other["params"]["extra"] = jnp.zeros(3)
    with pytest.raises(InputError) as caught:
        MetricTask(SETTINGS, optax.sgd(1.0), start=other)
    for phrase in (
        "params/heads/stage1/hidden/kernel is missing",
        "params/extra is unexpected",
        "params/heads/stage4/hidden/kernel has shape (24, 24), expected (16, 16)",
    ):
        assert phrase in str(caught.value)


def test_bfloat16_computes_near_float32_and_keeps_weights_and_statistics_float32(state, updated):
    task = dataclasses.replace(TASK, dtype=jnp.bfloat16)
    new, scalars = jax.jit(task.update).lower(state, pairs(4)).compile(QUICK)(state, pairs(4))
    assert {leaf.dtype for leaf in jax.tree.leaves((new.params, new.batch_stats, scalars))} == {jnp.dtype("float32")}
    # bfloat16 has 8 bits: half a percent a layer; the loss is a mean over 120 locations.
    np.testing.assert_allclose(scalars["metric/loss"], updated[0][1]["metric/loss"], rtol=0.05)
