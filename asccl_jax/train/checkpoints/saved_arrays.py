"""Arrays that Orbax wrote, described and read into memory, whatever devices they were on and whatever program runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from asccl_jax.train.checkpoints.abandoned_io import abandoned_io_unheard
from asccl_jax.train.checkpoints.checkpoint_folder import reading

__all__ = ["SavedArray", "describe_arrays", "read_arrays"]


class SavedArray(NamedTuple):
    """An array on disk.

    Attributes:
      name: Its path in the tree, joined by dots.
      shape: Its shape.
      dtype: Name of its type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.numbers * np.dtype(self.dtype).itemsize


def describe_arrays(folder: Path) -> list[SavedArray]:
    """Returns what arrays a folder holds, by name; a typed PRNG key is the integers it is stored as.

    Raises:
      DamagedError: A part is missing or cut short.
      InputError: The system refuses to read it.
    """
    with reading(folder):
        leaves = jax.tree_util.tree_leaves_with_path(_tree(folder), is_leaf=_is_array)
        return sorted(SavedArray(_name(path), tuple(leaf.shape), np.dtype(leaf.dtype).name) for path, leaf in leaves)


def read_arrays(folder: Path, parts: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Returns arrays by name, in memory.

    Args:
      folder: Where they are.
      parts: First parts of the names that are wanted; None takes all.

    Raises:
      DamagedError: A part is missing or cut short.
      InputError: The system refuses to read it.
    """
    with (
        abandoned_io_unheard(),
        reading(folder),
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer,
    ):
        wanted = {name: tree for name, tree in _tree(folder).items() if parts is None or name in parts}
        # As NumPy arrays, or they would be put on the devices that wrote them.
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted, is_leaf=_is_array)
        asked = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        found = checkpointer.restore(folder, args=asked)
    return {_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(found)}


def _tree(folder: Path) -> dict[str, Any]:
    found: Any = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    return dict(found)


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape")


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
