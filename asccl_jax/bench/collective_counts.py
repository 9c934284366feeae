"""What an update sends between devices, from the program that XLA compiles for a mesh; nothing is run.

The main program is the child of `bench collectives`, which tells it by the environment how many devices to simulate.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from asccl_jax.bench.collectives import Tally, count_collectives
from asccl_jax.errors import InputError
from asccl_jax.tasks import Task
from asccl_jax.tasks.manipulator_task import ManipulatorTask
from asccl_jax.tasks.metric_task import MetricTask
from asccl_jax.tasks.renderer_task import RendererTask
from asccl_jax.train.command_line import parse
from asccl_jax.train.recipes import manipulator_task, metric_task, renderer_task
from asccl_jax.train.sharding import data_mesh, sharded_update, state_sharding
from asccl_jax.types import PairBatch, SequenceBatch, WindowBatch

__all__ = ["CompiledUpdate", "abstract_batch", "compile_update", "recipe_task"]

_QUICK: Mapping[str, dict[str, Any]] = {"cpu": {"xla_backend_optimization_level": 0}}
"""Machine code that nobody runs; what is sent was decided before it is made."""


@dataclasses.dataclass(frozen=True)
class CompiledUpdate:
    """What the compiler made of an update.

    Attributes:
      collectives: By kind, what a step sends.
      argument_bytes: State and rows that a device holds.
      temporary_bytes: What a device needs on top during a step.
    """

    collectives: dict[str, Tally]
    argument_bytes: int
    temporary_bytes: int


def compile_update(task: Task, batch: Any, mesh: Mesh) -> CompiledUpdate:
    """Returns what an update sends and holds on a mesh.

    Args:
      task: What is trained.
      batch: Shapes and dtypes of the global batch.
      mesh: The mesh of `data_mesh`.
    """
    state = jax.eval_shape(task.init, jax.random.key(0))
    lowered = sharded_update(mesh, state_sharding(state, mesh)).lower(task, state, batch)
    compiled: Any = lowered.compile(_QUICK.get(jax.default_backend()))
    memory = compiled.memory_analysis()
    return CompiledUpdate(
        count_collectives(compiled.as_text()), memory.argument_size_in_bytes, memory.temp_size_in_bytes
    )


def recipe_task(config: ConfigDict) -> Task:
    """Returns the task of a recipe, without data and without what needs them (the manipulator's meshes).

    Raises:
      InputError: A value that makes no sense, or an unknown task.
    """
    config = config.copy_and_resolve_references()
    config.steps = max(config.steps, 1)  # a schedule's length, which only data could tell
    tasks: Mapping[str, Callable[[ConfigDict], Task]] = {
        "metric": metric_task,
        "manipulator": manipulator_task,
        "renderer": renderer_task,
    }
    if config.task not in tasks:
        raise InputError(f"config.task={config.task!r}: expected one of {', '.join(tasks)}")
    return tasks[config.task](config)


def abstract_batch(task: Task, rows: int) -> Any:
    """Returns shapes and dtypes of a global batch of so many rows, as the task's recipe would read it."""

    def of(*lengths: int, dtype: Any = jnp.uint8) -> Any:
        return jax.ShapeDtypeStruct((rows, *lengths), dtype)

    index = of(dtype=jnp.int32)
    if isinstance(task, MetricTask):
        image = of(task.settings.image_size, task.settings.image_size, 3)
        return PairBatch(image, image, index)
    if isinstance(task, ManipulatorTask):
        window = of(task.settings.window, task.settings.coefficients, dtype=jnp.float32)
        return WindowBatch(window, index, window, index, index, index)
    assert isinstance(task, RendererTask)
    frames, size = task.settings.context_frames - 1 + task.chunk, task.settings.image_size
    picture, begins = of(frames, size, size, 3), of(dtype=jnp.bool_)
    mask, centre = of(frames, size, size, 1), of(frames, 2, dtype=jnp.int32)
    box = of(frames, 4, dtype=jnp.float32)
    return SequenceBatch(picture, picture, picture, picture, mask, centre, box, begins, begins, index)


def main() -> int:
    """Reads options as JSON from the command line, writes a row as JSON for each combination, and returns 0 or 2."""
    options = json.loads(sys.argv[1])
    try:
        for groups, fsdp, passes in itertools.product(options["groups"], options["fsdp"], options["accumulation"]):
            row = {"groups": groups, "fsdp": fsdp, "accumulation": passes}
            row |= _compiled(options["words"], options["rows"], groups, fsdp, passes)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    except InputError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return 2
    return 0


def _compiled(words: list[str], rows: int, groups: int | None, fsdp: int, passes: int) -> dict[str, Any]:
    config = parse(words).config
    config.batch_size, config.fsdp, config.accumulation = rows * jax.device_count(), fsdp, passes
    if groups is not None:
        if config.task != "metric":
            raise InputError(f"--groups={groups}: only the metric has BatchNorm, this recipe's task is {config.task}")
        config.model.bn_group_size = groups
    task = recipe_task(config)
    mesh = data_mesh(config.batch_size, fsdp=fsdp, accumulation=passes)
    update = compile_update(task, abstract_batch(task, config.batch_size), mesh)
    return {"task": config.task, "device": jax.devices()[0].device_kind, **dataclasses.asdict(update)}


if __name__ == "__main__":
    sys.exit(main())
