"""Weights, layouts and inputs that the goldens of the renderer have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from asccl_jax.convert.renderer_entries import FILE_NAMES, state_dicts_from_params, vgg_from_state_dict
from asccl_jax.models.vgg import Vgg
from asccl_jax.settings import RendererSettings
from tests.parity import recipe

__all__ = ["as_published", "channels_first", "channels_last", "state_dict", "vgg_of", "widened"]

Manifests = Mapping[str, Sequence[Mapping[str, Any]]]


def state_dict(manifests: Manifests, manifest: str, network: str, seed: int) -> dict[str, np.ndarray]:
    """State dict of one network, with both names of what checkpoints hold twice."""
    return recipe.make_weights(manifests[manifest], seed, prefix=f"renderer.{FILE_NAMES[network]}.")


def vgg_of(manifests: Manifests, seed: int, dtype: DTypeLike) -> Vgg:
    """VGG-19, of the widths that its manifest has."""
    weights = recipe.make_weights(manifests["vgg19"], seed)
    widths = tuple(len(weights[f"features.{first}.bias"]) for first in (0, 5, 10, 19, 28))
    return Vgg(widened(vgg_from_state_dict(weights, widths), dtype), widths, dtype)


def widened(tree: Any, dtype: DTypeLike) -> Any:
    """Weights as arrays of a type."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def channels_last(array: np.ndarray, dtype: DTypeLike) -> jax.Array:
    """An input in the layout of `asccl_jax`."""
    return jnp.asarray(np.moveaxis(array, -3, -1), dtype)


def channels_first(array: Any) -> np.ndarray:
    """A result in the reference's layout."""
    return np.moveaxis(np.asarray(array), -1, -3)


def as_published(
    params: Any, settings: RendererSettings, keys: Sequence[str], *, statistics: Any = None
) -> dict[str, np.ndarray]:
    """Parameter-shaped arrays by the keys of a golden, and those it should not lack."""
    published = {
        f"renderer.{FILE_NAMES[network]}.{key}": value
        for network, arrays in state_dicts_from_params(
            jax.device_get(params), settings, statistics=jax.device_get(statistics)
        ).items()
        for key, value in arrays.items()
    }
    return {key: published[key] for key in keys}
