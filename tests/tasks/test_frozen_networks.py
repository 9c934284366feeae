"""Frozen networks are arguments of the compiled update and of the scores, in the precision that the recipe says."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from asccl_jax.bench.collective_counts import abstract_batch
from asccl_jax.head.shape_images import ShapeRenderer
from asccl_jax.models.vgg import Vgg, init_vgg
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.manipulator_task import MeshSupervision
from asccl_jax.train.evaluation import Scorer
from asccl_jax.train.recipes import manipulator_task, metric_task, renderer_task
from asccl_jax.train.sharding import copy_to_all, data_mesh, sharded_update, state_sharding
from asccl_jax.weights import FrozenMetric, save_metric, save_vgg
from tests.head.heads import golden_head, golden_template
from tests.tasks.drawn import drawn_variables

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(16, 16, 16, 16), image_size=40, bn_group_size=None)
METRIC = FrozenMetric(drawn_variables(SETTINGS), SETTINGS)
WIDTHS = (16, 16, 16, 16, 16)
LARGEST = 2048
"""Bytes: a table of a picture's rows is smaller, the smallest kernel of the networks here, 3x3 of 16 by 16, is not."""


def smoke(name):
    spec = importlib.util.spec_from_file_location(f"{name}_recipe", CONFIGS / f"{name}.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    config = recipe.get_config("smoke")
    config.batch_size = 8
    return config


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    save_metric(folder / "metric", METRIC)
    save_vgg(folder / "vgg", Vgg(init_vgg(jax.random.key(0), WIDTHS), WIDTHS))
    return folder


@pytest.fixture(scope="module")
def tasks(networks):
    """Each recipe's smoke task with all the frozen networks that it can have."""
    renderer = smoke("renderer")
    renderer.metric.path, renderer.perceptual.vgg = str(networks / "metric"), str(networks / "vgg")
    head = ShapeRenderer(golden_head(), golden_template(), size=36)
    return {
        "metric": metric_task(smoke("asccl")),
        "manipulator": manipulator_task(smoke("manipulator"), mesh_loss=MeshSupervision(head, METRIC)),
        "renderer": renderer_task(renderer),
    }


def program_of(task, *, rows=8):
    """The update as the loop compiles it, in StableHLO."""
    mesh, state = data_mesh(rows), jax.eval_shape(task.init, jax.random.key(0))
    update = sharded_update(mesh, state_sharding(state, mesh))
    return update.lower(copy_to_all(task, mesh), state, abstract_batch(task, rows)).as_text()


def constants_of(program):
    """Bytes of the constants that are not one value throughout."""
    bits = {"f64": 8, "f32": 4, "bf16": 2, "i64": 8, "ui64": 8, "i32": 4, "ui32": 4, "ui8": 1, "i8": 1, "i1": 1}
    found = re.findall(r'constant dense<["\[].*> : tensor<((?:\d+x)*)(\w+)>', program)
    return [bits[kind] * int(np.prod([int(side) for side in shape.split("x")[:-1]])) for shape, kind in found]


@pytest.mark.parametrize("name", ["metric", "manipulator", "renderer"])
def test_a_compiled_update_holds_no_weights(tasks, name):
    task = tasks[name]
    assert max(constants_of(program_of(task)), default=0) <= LARGEST
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(task))
    assert held > 100_000 or name == "metric"


def test_a_constant_that_was_closed_over_is_found(tasks):
    task = tasks["renderer"]
    state = jax.eval_shape(task.init, jax.random.key(0))
    program = jax.jit(lambda state, batch: task.update(state, batch)).lower(state, abstract_batch(task, 8)).as_text()
    assert sum(constants_of(program)) > 100_000


@pytest.mark.parametrize("name", ["metric", "manipulator", "renderer"])
def test_compiled_scores_hold_no_weights(tasks, name):
    task, mesh = tasks[name], data_mesh(8)
    state = jax.eval_shape(task.init, jax.random.key(0))
    rows = jax.ShapeDtypeStruct((8,), bool)
    scorer = Scorer(copy_to_all(task, mesh), lambda: (), mesh)
    program = scorer._sums.lower(task, state, abstract_batch(task, 8), rows).as_text()
    assert max(constants_of(program), default=0) <= LARGEST


def test_the_renderers_judges_compute_in_the_precision_of_the_recipe(tasks, networks):
    config = smoke("renderer")
    config.metric.path, config.perceptual.vgg = str(networks / "metric"), str(networks / "vgg")
    config.dtype = "bfloat16"
    task = renderer_task(config)
    kinds = re.findall(r"stablehlo.convolution.*: \(tensor<[\dx]*x(\w+)>, tensor<[\dx]*x(\w+)>\)", program_of(task))
    assert set(kinds) == {("bf16", "bf16")}
    assert set(re.findall(r"stablehlo.convolution.*: \(tensor<[\dx]*x(\w+)>", program_of(tasks["renderer"]))) == {"f32"}
    # Weights stay whole.
    assert {leaf.dtype for leaf in jax.tree.leaves(task)} == {np.dtype("float32")}


def test_pmap_shares_the_networks_among_devices(tasks):
    task = tasks["manipulator"]
    state, batch = jax.eval_shape(task.init, jax.random.key(0)), abstract_batch(task, 8)
    shares = jax.tree.map(lambda rows: jax.ShapeDtypeStruct((8, 1, *rows.shape[1:]), rows.dtype), batch)

    def update(task, state, batch):
        return task.update(state, batch, axis_name="data")

    mapped = jax.pmap(update, axis_name="data", in_axes=(None, None, 0))
    assert max(constants_of(mapped.lower(task, state, shares).as_text()), default=0) <= LARGEST
