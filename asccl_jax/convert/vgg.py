"""torchvision's state dict of VGG-19 to Flax weights; strict about what is needed, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from flax import traverse_util

from asccl_jax.convert.state_dicts import value_faults
from asccl_jax.errors import InputError
from asccl_jax.models.vgg import PUBLISHED_WIDTHS, STAGE_CONVOLUTIONS
from asccl_jax.trees import shape_differences
from asccl_jax.types import Variables

__all__ = ["vgg_from_state_dict"]

_ALL_CONVOLUTIONS = (2, 2, 4, 4, 4)


def vgg_from_state_dict(state_dict: Mapping[str, np.ndarray], widths: tuple[int, ...] = PUBLISHED_WIDTHS) -> Variables:
    """Returns the weights of the convolutions up to `relu5_1`; what comes after them is ignored.

    Args:
      state_dict: Arrays by torchvision's key, `features.0.weight` and on; the values keep their type.
      widths: Channels at each resolution.

    Raises:
      InputError: Keys that are needed are missing or do not fit, or keys that VGG-19 does not have; all are listed.
    """
    expected = {key: shape for key, _, shape in _entries(widths)}
    # Later convolutions and the classifier are part of the file.
    found = {
        key: np.asarray(value)
        for key, value in state_dict.items()
        if key in expected or not (key.startswith("classifier.") or key in _later_keys())
    }
    problems = shape_differences({key: array.shape for key, array in found.items()}, expected)
    problems += value_faults({key: array for key, array in found.items() if key in expected})
    if problems:
        raise InputError(f"not a VGG-19 checkpoint: {'; '.join(problems)}")
    flat = {
        path: np.ascontiguousarray(found[key].transpose(2, 3, 1, 0)) if path[-1] == "kernel" else found[key]
        for key, path, _ in _entries(widths)
    }
    return traverse_util.unflatten_dict(flat)


def _entries(widths: tuple[int, ...]) -> Iterator[tuple[str, tuple[str, str], tuple[int, ...]]]:
    """Yields key, place and PyTorch's shape of what is used."""
    inputs = 3
    for key, stage, number in _convolutions():
        if number < STAGE_CONVOLUTIONS[stage]:
            name, width = f"conv{stage + 1}_{number + 1}", widths[stage]
            yield f"{key}.weight", (name, "kernel"), (width, inputs, 3, 3)
            yield f"{key}.bias", (name, "bias"), (width,)
            inputs = width


def _later_keys() -> set[str]:
    later = (key for key, stage, number in _convolutions() if number >= STAGE_CONVOLUTIONS[stage])
    return {f"{key}.{leaf}" for key in later for leaf in ("weight", "bias")}


def _convolutions() -> Iterator[tuple[str, int, int]]:
    """Yields key, stage and number of all convolutions: each is followed by a rectifier, each stage by a maximum."""
    position = 0
    for stage, convolutions in enumerate(_ALL_CONVOLUTIONS):
        for number in range(convolutions):
            yield f"features.{position}", stage, number
            position += 2
        position += 1
