"""What recipes of all tasks have in common: entries of a config as values of this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from asccl_jax.errors import InputError
from asccl_jax.train.experiment import LoopSettings

__all__ = ["computation_dtype", "loop_settings", "plain_config"]


def computation_dtype(name: str) -> Any:
    """Returns the type that `config.dtype` names; "auto" is float32 on CPU and bfloat16 elsewhere.

    Raises:
      InputError: Another name.
    """
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in dtypes:
        raise InputError(f"config.dtype={name!r}: expected auto, float32 or bfloat16")
    return dtypes[name]


def loop_settings(config: ConfigDict) -> LoopSettings:
    """Returns how long to train, and how often to do what.

    Raises:
      InputError: A count that is not positive.
    """
    names = [field.name for field in dataclasses.fields(LoopSettings)]
    # A recipe of one's own may leave out what has a default.
    return LoopSettings(**{name: config[name] for name in names if name in config})


def plain_config(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON holds it: nested mappings, lists, numbers, text."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(entry) for name, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(entry) for entry in value]
        return value

    return plain(config.to_dict())
