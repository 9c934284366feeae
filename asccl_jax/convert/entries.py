"""Tensors under both names, PyTorch's key and Flax's path: a state dict is checked and gathered by a list of them.

`num_batches_tracked` of a BatchNorm is not used by any network: it may be absent, and is never read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from asccl_jax.trees import shape_differences
from asccl_jax.types import Variables

__all__ = [
    "NORM_ENTRIES",
    "Entry",
    "conv_entry",
    "counter_of",
    "entry_faults",
    "gather",
    "linear_entries",
    "norm_entries",
    "value_faults",
]

# What is wrong with the values of a state dict, whatever network it belongs to.


def value_faults(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns one phrase for every array that holds anything but finite real numbers.

    >>> value_faults({"a": np.zeros(2), "b": np.array([1]), "c": np.array([np.nan])})
    ['b holds int64, expected real numbers', 'c holds values that are not finite']
    """
    faults = []
    for key in sorted(arrays):
        if not np.issubdtype(arrays[key].dtype, np.floating):
            faults.append(f"{key} holds {arrays[key].dtype}, expected real numbers")
        elif not np.isfinite(arrays[key]).all():
            faults.append(f"{key} holds values that are not finite")
    return faults


NORM_ENTRIES = (
    ("weight", "params", "scale"),
    ("bias", "params", "bias"),
    ("running_mean", "batch_stats", "mean"),
    ("running_var", "batch_stats", "var"),
)
"""PyTorch's name, collection and leaf of what a BatchNorm has."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor under both its names.

    Attributes:
      key: PyTorch's.
      path: Collection, modules and leaf in Flax.
      shape: PyTorch's.
      split: The shape with axes taken apart that PyTorch holds as one, if any.
      axes: Flax's order of the axes of `split`.
      merged: Flax's shape where it holds axes as one that `split` has apart.
    """

    key: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...] = (0,)
    split: tuple[int, ...] | None = None
    merged: tuple[int, ...] | None = None

    @property
    def flax_shape(self) -> tuple[int, ...]:
        """Shape of the Flax array."""
        apart = self.split or self.shape
        return self.merged or tuple(apart[axis] for axis in self.axes)

    def to_flax(self, array: np.ndarray) -> np.ndarray:
        """Returns PyTorch's array as Flax holds it."""
        ordered = array.reshape(self.split or self.shape).transpose(self.axes)
        return np.ascontiguousarray(ordered.reshape(self.flax_shape))

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Returns Flax's array as PyTorch holds it."""
        apart = self.split or self.shape
        ordered = array.reshape([apart[axis] for axis in self.axes]).transpose(np.argsort(self.axes))
        return np.ascontiguousarray(ordered.reshape(self.shape))


def conv_entry(key: str, path: tuple[str, ...], shape: tuple[int, int, int, int]) -> Entry:
    """Returns the kernel of a convolution; key and path are those of its module, the shape is PyTorch's."""
    return Entry(f"{key}.weight", ("params", *path, "kernel"), shape, (2, 3, 1, 0))


def linear_entries(key: str, path: tuple[str, ...], inputs: int, outputs: int) -> Iterator[Entry]:
    """Yields kernel and bias of a linear layer; key and path are those of its module."""
    yield Entry(f"{key}.weight", ("params", *path, "kernel"), (outputs, inputs), (1, 0))
    yield Entry(f"{key}.bias", ("params", *path, "bias"), (outputs,))


def norm_entries(key: str, path: tuple[str, ...], width: int) -> Iterator[Entry]:
    """Yields what a BatchNorm has; key and path are those of its module."""
    for name, collection, leaf in NORM_ENTRIES:
        yield Entry(f"{key}.{name}", (collection, *path, leaf), (width,))


def counter_of(key: str) -> str:
    """Returns the key of the counter that stands beside a `running_var`."""
    return f"{key.rpartition('.')[0]}.num_batches_tracked"


def entry_faults(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Returns one phrase for every missing, unexpected, mis-shaped or non-finite entry; none if all fit.

    Args:
      arrays: A state dict; a counter beside an expected `running_var` may be there or not.
      expected: PyTorch's shapes by key, without counters.
    """
    counters = {counter_of(key) for key in expected if key.endswith("running_var")}
    found = {key: np.asarray(array) for key, array in arrays.items() if key not in counters}
    faults = shape_differences({key: array.shape for key, array in found.items()}, expected)
    return faults + value_faults({key: array for key, array in found.items() if key in expected})


def gather(arrays: Mapping[str, np.ndarray], entries: Iterable[Entry]) -> Variables:
    """Returns the Flax tree, float32, of entries whose arrays are under their PyTorch keys."""
    variables: Variables = {"params": {}, "batch_stats": {}}
    for entry in entries:
        *parents, leaf = entry.path
        node: dict[str, Any] = variables
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = entry.to_flax(np.asarray(arrays[entry.key], dtype=np.float32))
    return variables
