"""Names of the leaves of a pytree, every difference between two trees in one list, and a vector cut to a tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["cut_vector", "named_shapes", "shape_differences"]


def cut_vector(vector: Float[Array, " n"], tree: Any) -> Any:
    """Returns a long vector cut to the shapes of a tree's leaves, in their order.

    >>> cut_vector(jnp.arange(3.0), {"a": np.zeros(1), "b": np.zeros((2, 1))})["b"].tolist()
    [[1.0], [2.0]]
    """
    leaves, structure = jax.tree.flatten(tree)
    pieces = jnp.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
    shaped = [piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def named_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every leaf under its path, such as `params/trunk/stem/conv/kernel`.

    Leaves are whatever has a shape: arrays, abstract arrays, a checkpoint's metadata. A typed PRNG key counts as the
    integers it is stored as.

    >>> named_shapes({"params": {"kernel": np.zeros((3, 4))}, "step": np.zeros(())})
    {'params/kernel': (3, 4), 'step': ()}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "shape"))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _stored_shape(leaf) for path, leaf in leaves}


def shape_differences(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Returns one phrase for every entry that is missing, unexpected or of another shape; none if the trees agree.

    >>> shape_differences({"a": (1,), "b": (2,)}, {"b": (3,), "c": ()})
    ['c is missing', 'a is unexpected', 'b has shape (2,), expected (3,)']

    Args:
      found: Shapes of what was read.
      expected: Shapes of what is needed.
    """
    return [
        *(f"{name} is missing" for name in sorted(expected.keys() - found.keys())),
        *(f"{name} is unexpected" for name in sorted(found.keys() - expected.keys())),
        *(
            f"{name} has shape {found[name]}, expected {expected[name]}"
            for name in sorted(found.keys() & expected.keys())
            if found[name] != expected[name]
        ),
    ]


def _stored_shape(leaf: Any) -> tuple[int, ...]:
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return tuple(jax.eval_shape(jax.random.key_data, leaf).shape)
    return tuple(np.shape(leaf))
