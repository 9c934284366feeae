"""Data parallelism: one mesh axis over all devices, batches split along it, state on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asccl_jax.errors import InputError

__all__ = ["data_mesh", "place", "replicate", "replicated", "sharded_update", "split_over_data"]


def data_mesh(batch_size: int) -> Mesh:
    """Returns a mesh of all devices of all processes with the one axis "data".

    Args:
      batch_size: Global batch size, which the devices must divide.

    Raises:
      InputError: The batch does not divide over the devices.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise InputError(
            f"config.batch_size={batch_size} does not divide over {devices} devices: choose a multiple of {devices},"
            " or hide devices with CUDA_VISIBLE_DEVICES"
        )
    # Auto: the compiler propagates shardings. Explicit, the default of jax.make_mesh, would make them part of types.
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def split_over_data(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of state and scalars: a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(batch: Any, mesh: Mesh) -> Any:
    """Returns the global batch on the devices, made of the rows that each process holds.

    Args:
      batch: Pytree of host arrays, this process's rows of the global batch.
      mesh: The mesh of `data_mesh`.
    """
    sharding = split_over_data(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), batch)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Returns a pytree, equal on all processes, with a whole copy on every device of the mesh.

    Args:
      tree: Arrays and typed PRNG keys of this process.
      mesh: The mesh of `data_mesh`.
    """
    sharding = replicated(mesh)

    def put(leaf: Any) -> jax.Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(put, tree)


def sharded_update(update: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Returns a task's `update(state, batch)` compiled for the mesh; the state passed in is given up to it."""
    return jax.jit(
        update,
        in_shardings=(replicated(mesh), split_over_data(mesh)),
        out_shardings=replicated(mesh),
        donate_argnums=0,
    )
