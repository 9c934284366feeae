"""The manipulator's update: four stages in the published order, and one result on one device or many."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asccl_jax.errors import InputError
from asccl_jax.head.shape_images import ShapeRenderer
from asccl_jax.image.face_box import landmark_box
from asccl_jax.image.face_crop import crop_faces
from asccl_jax.losses import asccl_loss
from asccl_jax.models.manipulator import NETWORKS, Manipulator
from asccl_jax.sampling import map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks import Task
from asccl_jax.tasks.manipulator_task import ManipulatorTask, MeshSupervision, discriminator_loss, generator_loss
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.train.sharding import data_mesh, place, replicated, split_over_data
from asccl_jax.types import WindowBatch
from asccl_jax.weights import FrozenMetric, load_manipulator
from tests.head.heads import coefficients_of, golden_head, golden_template
from tests.models.tiny_manipulator import TINY_MANIPULATOR as TWO_LAYERS
from tests.models.tiny_manipulator import drawn_manipulator
from tests.tasks.drawn import drawn_variables

TINY = dataclasses.replace(TWO_LAYERS, lstm_layers=1)  # compiled in half the time
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same mathematics

# Plain descent: a step is the gradient itself, where Adam's first step is little more than its sign.
TASK = ManipulatorTask(TINY, optax.sgd(1.0), rate_schedule(0.1), start=drawn_manipulator(TINY))


def windows(count, seed=0):
    random = np.random.default_rng(seed)
    source, reference = random.normal(size=(2, count, TINY.window, TINY.coefficients)).astype(np.float32)
    emotions = random.integers(0, TINY.emotions, (2, count)).astype(np.int32)
    index = np.arange(count, dtype=np.int32)
    return WindowBatch(source, emotions[0], reference, emotions[1], index, index[::-1].copy())


def assert_trees_close(actual, expected, *, atol):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))


def farthest(actual, expected):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), actual, expected)))


@pytest.fixture(scope="module")
def state():
    return TASK.init(jax.random.key(3))


LATENTS = jnp.asarray(np.random.default_rng(5).normal(size=(4, TINY.latent_size)), jnp.float32)


@pytest.fixture(scope="module")
def stepped(state):
    return jax.jit(TASK.update_with).lower(state, windows(4), LATENTS).compile(QUICK)(state, windows(4), LATENTS)


@pytest.fixture(scope="module")
def update(state):
    return jax.jit(TASK.update).lower(state, windows(4)).compile(QUICK)


def test_it_is_a_task():
    assert isinstance(TASK, Task)


def test_a_step_is_the_four_published_updates_one_after_the_other(state, stepped):
    batch = jax.tree.map(jnp.asarray, windows(4))

    def descended(params, loss, mode, moving):
        def of_all(variables):
            return loss(Manipulator(variables, TINY), mode, batch, LATENTS)[0]

        grads = jax.jit(jax.grad(of_all)).lower(params).compile(QUICK)(params)
        moved = {name: jax.tree.map(lambda p, g: p - 0.1 * g, params[name], grads[name]) for name in moving}
        return {**params, **moved}

    expected = state.params
    for mode in ("latent", "reference"):
        expected = descended(expected, discriminator_loss, mode, ["discriminator"])
    expected = descended(expected, generator_loss, "latent", ["generator", "mapping_network", "style_encoder"])
    expected = descended(expected, generator_loss, "reference", ["generator"])
    new, scalars = stepped
    # Steps are 0.1 times gradients of order 1; float32 sums in another order, carried through four stages.
    assert_trees_close(new.params, expected, atol=1e-5)
    assert farthest(new.params, state.params) > 0.01
    signs = {"adversarial": 1, "style": 1, "cycle": 1, "mouth": -1}
    total = sum(s * scalars[f"manipulator/{m}/{n}"] for m in ("latent", "reference") for n, s in signs.items())
    np.testing.assert_allclose(scalars["manipulator/loss"], total, rtol=1e-6)
    assert "manipulator/mesh" not in scalars
    assert all(value.shape == () and value.dtype == jnp.float32 for value in scalars.values())


def test_a_step_repeats_exactly_and_the_next_draws_other_noise(state, update):
    first, second = update(state, windows(4)), update(state, windows(4))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert bool(jnp.all(a == b))
    later, _ = update(dataclasses.replace(state, step=state.step + 1), windows(4))
    assert int(later.step) == 2
    mapping = [jax.tree.leaves(run.params["mapping_network"])[0] for run in (first[0], later)]
    assert not np.allclose(*mapping, atol=1e-6)


def test_plain_jit_sharded_jit_and_pmap_give_equal_updates(state):
    batch, mesh = windows(16), data_mesh(16)
    plain = jax.jit(TASK.update).lower(state, batch).compile(QUICK)(state, batch)
    on_mesh = (jax.device_put(state, replicated(mesh)), place(batch, mesh))
    shardings = {"in_shardings": (replicated(mesh), split_over_data(mesh)), "out_shardings": replicated(mesh)}
    sharded = jax.jit(TASK.update, **shardings).lower(*on_mesh).compile(QUICK)(*on_mesh)
    mapped = jax.pmap(lambda s, b: TASK.update(s, b, axis_name="data"), axis_name="data", in_axes=(None, 0))
    shares = jax.tree.map(lambda rows: rows.reshape(8, 2, *rows.shape[1:]), batch)
    pmapped = jax.tree.map(lambda leaf: leaf[0], mapped.lower(state, shares).compile(QUICK)(state, shares))
    assert farthest(plain[0].params, state.params) > 0.01
    for other in (sharded, pmapped):
        # Noise of other rows on a device would move weights by thousandths.
        assert_trees_close(other[0].params, plain[0].params, atol=1e-5)
        assert_trees_close(other[1], plain[1], atol=1e-5)


@pytest.mark.parametrize("modes", [("latent", "reference"), ("reference",)])
def test_mesh_supervision_joins_the_generators_loss_of_its_modes(state, stepped, modes):
    def mesh_loss(generated, source, key):
        return jnp.mean(jnp.square(generated - source)) + 0.0 * jax.random.uniform(key)

    supervised = dataclasses.replace(TASK, mesh_loss=mesh_loss, mesh_weight=2.0, mesh_modes=modes)
    arguments = (state, windows(4), LATENTS)
    new, scalars = jax.jit(supervised.update_with).lower(*arguments).compile(QUICK)(*arguments)
    plain, without = stepped
    meshes = {name: value for name, value in scalars.items() if name not in without}
    assert meshes.keys() == {"manipulator/mesh", *(f"manipulator/{mode}/mesh" for mode in modes)}
    np.testing.assert_allclose(
        meshes["manipulator/mesh"], np.mean([meshes[f"manipulator/{mode}/mesh"] for mode in modes]), rtol=1e-6
    )
    # The latent mode's update is the only one that moves the mapping network: its gradient arrives there, weighted.
    judged = plain.params["discriminator"]

    def alone(mapping):
        networks = Manipulator({**state.params, "discriminator": judged, "mapping_network": mapping}, TINY)
        fake = generator_loss(networks, "latent", jax.tree.map(jnp.asarray, windows(4)), LATENTS)[1][1]
        return mesh_loss(fake, windows(4).source, jax.random.key(0))

    gradient = (
        jax.jit(jax.grad(alone)).lower(state.params["mapping_network"]).compile(QUICK)(state.params["mapping_network"])
    )
    weight = 2.0 if "latent" in modes else 0.0
    difference = jax.tree.map(jnp.subtract, new.params["mapping_network"], plain.params["mapping_network"])
    assert_trees_close(difference, jax.tree.map(lambda g: -0.1 * weight * g, gradient), atol=1e-5)
    generators = [jax.tree.leaves(run.params["generator"])[0] for run in (new, plain)]
    assert not np.allclose(*generators, atol=1e-4)


def test_held_out_scores_are_each_windows_own(state):
    evaluate = jax.jit(TASK.evaluate).lower(state, windows(4)).compile(QUICK)
    scores, batch = evaluate(state, windows(4)), windows(4)
    other = windows(4, seed=1)
    mixed = jax.tree.map(lambda kept, new: np.concatenate([kept[:2], new[2:]]), batch, other)
    for name, values in evaluate(state, mixed).items():
        assert values.shape == (4,)
        np.testing.assert_allclose(values[:2], scores[name][:2], atol=1e-5, err_msg=name)
    assert not np.allclose(evaluate(state, mixed)["eval/score"][2:], scores["eval/score"][2:])
    expected = scores["eval/style"] + scores["eval/cycle"] - scores["eval/mouth"]
    np.testing.assert_allclose(scores["eval/score"], expected, rtol=1e-6)
    # The noise belongs to the window: at another place in a batch it is the same.
    turned = jax.tree.map(lambda rows: rows[::-1].copy(), batch)
    np.testing.assert_allclose(evaluate(state, turned)["eval/score"][::-1], scores["eval/score"], atol=1e-5)


def test_published_adam_moves_every_network_at_the_rate_of_the_step(state):
    task = ManipulatorTask(TINY, adam(1.0, b1=0.0, b2=0.99), lambda step: jnp.where(step == 0, 1e-3, 0.0))
    begun = task.init(jax.random.key(0))
    run = jax.jit(task.update).lower(begun, windows(4)).compile(QUICK)
    first, _ = run(begun, windows(4))
    second, _ = run(first, windows(4))
    for name in NETWORKS:
        steps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), first.params[name], begun.params[name])
        # The first step of an entry is its rate; generator and discriminator take two, the second a little longer.
        moves = 2 if name in ("generator", "discriminator") else 1
        assert 0.9e-3 < max(jax.tree.leaves(steps)) < 1.5e-3 * moves
        assert_trees_close(second.params[name], first.params[name], atol=0)


def test_weights_to_start_from_are_taken_exported_and_others_refused(state, tmp_path):
    assert_trees_close(state.params, drawn_manipulator(TINY), atol=0)
    TASK.export(state, tmp_path / "best")
    saved = load_manipulator(tmp_path)
    assert saved.settings == TINY
    assert_trees_close(saved.variables, state.params, atol=0)
    other = drawn_manipulator(dataclasses.replace(TINY, style_size=4))
    with pytest.raises(InputError, match=r"of other networks: .*style_encoder/seq2/linear2/bias has shape \(4,\)"):
        ManipulatorTask(TINY, optax.sgd(1.0), rate_schedule(0.1), start=other)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mesh_modes": ("both",)}, "in modes both"),
        ({"mesh_weight": -1.0}, "weighs -1.0"),
    ],
)
def test_bad_supervision_is_refused(fields, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(TASK, **fields)


SETTINGS = MetricSettings(
    stage_blocks=(1, 1, 1, 1), stage_widths=(8, 8, 8, 8), image_size=36, centre_counts=(8, 4, 2, 1), bn_group_size=None
)
METRIC = FrozenMetric(drawn_variables(SETTINGS), SETTINGS)


@pytest.fixture(scope="module")
def renderer():
    return ShapeRenderer(golden_head(), golden_template(), size=36)


@pytest.fixture(scope="module")
def mesh_windows():
    generated, source = (jnp.asarray(coefficients_of(6, seed=seed).reshape(2, 3, 51)) for seed in (1, 2))
    return generated, source


def faces(renderer, generated, source):
    """Both drawn heads, cut to the faces of the source."""
    box = landmark_box(renderer.landmarks(source.reshape(6, 51)))
    return [crop_faces(2 * renderer(values.reshape(6, 51)) - 1, box, 36) for values in (generated, source)]


def test_it_is_the_metric_of_the_drawn_faces(renderer, mesh_windows):
    generated, source = mesh_windows
    key = jax.random.key(4)
    found = jax.jit(MeshSupervision(renderer, METRIC, None).__call__)(generated, source, key)
    expected, _ = jax.jit(asccl_loss)(METRIC, *faces(renderer, generated, source), jax.random.split(key)[1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found > 0


def test_gradients_reach_generated_coefficients_of_the_chosen_frames_only(renderer, mesh_windows):
    supervision = MeshSupervision(renderer, METRIC, 2)
    gradients = jax.jit(jax.grad(supervision.__call__, argnums=(0, 1)))
    chosen = set()
    for number in range(6):
        generated, source = gradients(*mesh_windows, jax.random.key(number))
        assert (source == 0).all()
        assert jnp.isfinite(generated).all()
        moved = np.abs(generated.reshape(6, 51)).max(axis=1) > 0
        assert moved.sum() == 2
        # Jaw and expression alike.
        assert (generated.reshape(6, 51)[moved][:, [0, 1, 50]] != 0).all()
        chosen |= set(np.flatnonzero(moved).tolist())
    assert len(chosen) > 3


def test_a_part_of_the_picture_is_compared_alone(renderer, mesh_windows):
    generated, source = mesh_windows
    box = (0.5, 1.0, 0.0, 1.0)
    found = jax.jit(MeshSupervision(renderer, METRIC, None, box).__call__)(generated, source, jax.random.key(4))
    images = faces(renderer, generated, source)
    location_key = jax.random.split(jax.random.key(4))[1]
    sizes = map_sizes(SETTINGS.image_size)
    places = sample_locations(location_key, sizes, SETTINGS.centre_counts, border=SETTINGS.border, within=box)
    expected, _ = jax.jit(asccl_loss)(METRIC, *images, location_key, locations=places)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found != jax.jit(MeshSupervision(renderer, METRIC, None).__call__)(generated, source, jax.random.key(4))


def test_no_frames_are_refused(renderer):
    with pytest.raises(InputError, match="frames_per_step: 0"):
        MeshSupervision(renderer, METRIC, 0)
