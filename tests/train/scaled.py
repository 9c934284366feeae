"""Steps of a tiny metric on some of the simulated devices, each combination compiled once for all tests that ask."""

import dataclasses
import functools

import jax

from asccl_jax.bench.hlo_collectives import count_collectives
from asccl_jax.train import sharding
from asccl_jax.train.sharding import data_mesh, distribute, gather_whole, place, sharded_update, state_sharding
from tests.tasks.test_metric import QUICK, SETTINGS, TASK, pairs

BATCH = 16
STEPS = 2
SMALLEST_SPLIT = 64  # so that kernels of 16 channels are split as those of a large network are


@dataclasses.dataclass(frozen=True)
class Scaled:
    """What some steps left.

    Attributes:
      params: Weights, whole on the host.
      batch_stats: Running statistics, likewise.
      scalars: Of each step.
      collectives: Of a step, by kind.
      state_bytes: What one device holds of the state.
      split_arrays: How many arrays of the weights are split.
    """

    params: object
    batch_stats: object
    scalars: list
    collectives: dict
    state_bytes: int
    split_arrays: int


@functools.cache
def scaled(devices, *, fsdp=1, groups=2):
    """Returns the outcome of the same steps on so many devices."""
    task = dataclasses.replace(TASK, settings=dataclasses.replace(SETTINGS, bn_group_size=groups))
    mesh = data_mesh(BATCH, fsdp=fsdp, devices=jax.devices()[:devices])
    begun = task.init(jax.random.key(3))
    at = _sharding(begun, mesh)
    state, scalars = distribute(begun, at), []
    held = sharding.bytes_a_device(state)
    batches = [place(pairs(BATCH, seed=seed), mesh) for seed in range(STEPS)]
    update = sharded_update(mesh, at).lower(task, state, batches[0]).compile(QUICK)
    for batch in batches:
        state, values = update(task, state, batch)
        scalars.append({name: float(value) for name, value in values.items()})
    params, batch_stats = jax.device_get(gather_whole((state.params, state.batch_stats), mesh))
    split = sum(not placed.is_fully_replicated for placed in jax.tree.leaves(at.params))
    return Scaled(params, batch_stats, scalars, count_collectives(update.as_text()), held, split)


def _sharding(state, mesh):
    published = sharding.SMALLEST_SPLIT
    try:
        sharding.SMALLEST_SPLIT = SMALLEST_SPLIT
        return state_sharding(state, mesh)
    finally:
        sharding.SMALLEST_SPLIT = published
