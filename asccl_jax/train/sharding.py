"""Devices as a mesh: batches split over all of them, weights and optimiser state over as many as `config.fsdp` says.

The mesh has two axes. A batch is split over both, so every device computes on rows of its own. The state is split over
"fsdp" alone and repeated along "data". An update first gathers the networks whole, computes as if they had never been
split, and keeps its share of what it changed: what a device holds between updates falls with `fsdp`, and the numbers
stay those of data parallelism.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asccl_jax.errors import InputError
from asccl_jax.tasks import Task
from asccl_jax.types import TrainState

__all__ = [
    "SMALLEST_SPLIT",
    "bytes_a_device",
    "copy_to_all",
    "data_mesh",
    "distribute",
    "gather_whole",
    "place",
    "process_by_process",
    "replicated",
    "sharded_update",
    "split_over_data",
    "state_sharding",
]

SMALLEST_SPLIT = 2**14
"""Entries of the smallest array that is split: below, a message costs more than the memory is worth."""


def data_mesh(
    batch_size: int, *, fsdp: int = 1, accumulation: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Returns a mesh of devices with the axes "data" and "fsdp".

    Args:
      batch_size: Global batch size, which devices times `accumulation` must divide.
      fsdp: Devices over which the state is split; neighbours, so of one host where a host has as many.
      accumulation: Passes that an update takes.
      devices: Which; None takes all of all processes.

    Raises:
      InputError: The batch does not divide, or `fsdp` does not divide the devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    for name, value in (("fsdp", fsdp), ("accumulation", accumulation)):
        if value < 1:
            raise InputError(f"config.{name}={value}: expected at least 1")
    if count % fsdp:
        raise InputError(f"config.fsdp={fsdp} does not divide {count} devices: choose a divisor of {count}")
    if batch_size % count:
        raise InputError(
            f"config.batch_size={batch_size} does not divide over {count} devices: choose a multiple of {count},"
            " or hide devices with CUDA_VISIBLE_DEVICES"
        )
    if batch_size % (count * accumulation):
        raise InputError(
            f"config.batch_size={batch_size} does not divide over {count} devices times"
            f" config.accumulation={accumulation}: choose a multiple of {count * accumulation}"
        )
    # Auto: the compiler propagates shardings. Explicit, the default of jax.make_mesh, would make them part of types.
    axis_types = (AxisType.Auto, AxisType.Auto)
    mesh = jax.make_mesh((count // fsdp, fsdp), ("data", "fsdp"), axis_types=axis_types, devices=devices)
    ordered = np.empty(count, object)
    ordered[:] = process_by_process(list(mesh.devices.flat))
    return Mesh(ordered.reshape(mesh.devices.shape), mesh.axis_names, axis_types=axis_types)


def process_by_process(devices: Sequence[Any]) -> list[Any]:
    """Returns devices with those of process 0 first, those of a process in the order they had.

    TPUs' meshes follow the wiring, not the processes. Process p reads the p-th share of a global batch: only in this
    order is row n of the batch row n of the array, on every machine that a run goes on with. The renderer's state
    keeps frames by row.
    """
    return sorted(devices, key=lambda device: device.process_index)


def split_over_data(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of scalars and small arrays: a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """Returns a sharding for every leaf of a state, in a pytree like it.

    The rule: an array of at least `SMALLEST_SPLIT` entries is split over "fsdp" along the longest of the axes that
    `fsdp` divides, the last of equals. Any other has a whole copy on every device: smaller ones, those that no axis of
    which divides, scalars, PRNG keys.

    Args:
      state: Arrays, or what has their shapes and dtypes.
      mesh: The mesh of `data_mesh`.
    """
    fsdp = mesh.shape["fsdp"]

    def of_leaf(leaf: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % fsdp == 0]
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        if fsdp == 1 or is_key or not axes or math.prod(leaf.shape) < SMALLEST_SPLIT:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(of_leaf, state)


def place(batch: Any, mesh: Mesh) -> Any:
    """Returns the global batch on the devices, made of the rows that each process holds.

    Args:
      batch: Pytree of host arrays, this process's rows of the global batch.
      mesh: The mesh of `data_mesh`.
    """
    sharding = split_over_data(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), batch)


def distribute(tree: Any, sharding: Any) -> Any:
    """Returns a pytree, equal on all processes, on the devices: of each leaf the part that its sharding says.

    Args:
      tree: Arrays and typed PRNG keys of this process, whole.
      sharding: A pytree like it, of `state_sharding`.
    """

    def put(leaf: Any, at: NamedSharding) -> jax.Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf), at), impl=jax.random.key_impl(leaf))
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, at, lambda part: whole[part])

    return jax.tree.map(put, tree, sharding)


def copy_to_all(tree: Any, mesh: Mesh) -> Any:
    """Returns a pytree, equal on all processes, with a whole copy of every leaf on every device.

    Args:
      tree: Arrays of this process, such as a task's frozen networks.
      mesh: The mesh of `data_mesh`.
    """
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, distribute(leaves, [replicated(mesh)] * len(leaves)))


def gather_whole(tree: Any, mesh: Mesh) -> Any:
    """Returns a pytree with a whole copy of every leaf on every device; all processes must call this together.

    Args:
      tree: Arrays on the mesh; returned as they are where nothing is split.
      mesh: The mesh of `data_mesh`.
    """
    if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        return tree
    # Waits: processes must meet in their collectives in one order, which two programs in flight would not ensure.
    return jax.block_until_ready(_gathering(mesh)(tree))


def sharded_update(mesh: Mesh, sharding: Any) -> jax.stages.Wrapped:
    """Returns `update(task, state, batch)` compiled for the mesh; the state passed in is given up to it.

    The task's frozen networks are arguments, each device's own copy of them: see `copy_to_all`.

    Args:
      mesh: The mesh of `data_mesh`.
      sharding: Of the state before and after, by `state_sharding`.
    """

    def update(task: Task, state: TrainState, batch: Any) -> Any:
        # Without this the compiler may split layers by channels instead, and move activations to do so.
        networks = lax.with_sharding_constraint((state.params, state.batch_stats), replicated(mesh))
        return task.update(dataclasses.replace(state, params=networks[0], batch_stats=networks[1]), batch)

    return jax.jit(
        update,
        in_shardings=(replicated(mesh), sharding, split_over_data(mesh)),
        out_shardings=(sharding, replicated(mesh)),
        donate_argnums=1,
    )


def bytes_a_device(tree: Any) -> int:
    """Returns how many bytes of some arrays the fullest of this process's devices holds."""
    held: dict[jax.Device, int] = {}
    for leaf in jax.tree.leaves(tree):
        data = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for shard in data.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return max(held.values(), default=0)


@functools.cache
def _gathering(mesh: Mesh) -> Callable[[Any], Any]:
    """The compiled gathering; one a mesh, so that each tree's is compiled once."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))
