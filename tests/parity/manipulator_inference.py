"""The published test programme of the manipulator replayed from a golden's seed: styles, windows, geometric medians."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from asccl_jax.convert.manipulator_entries import manipulator_settings, variables_from_state_dicts
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.infer.manipulation import (
    gaussian_weights,
    geometric_median,
    label_styles,
    manipulate_coefficients,
    reference_style,
)
from asccl_jax.models.manipulator import NETWORKS, Manipulator
from tests.parity import recipe
from tests.parity.metric import Replayed

__all__ = ["INPUTS", "MANIFESTS", "NAMES", "replay"]

NAMES = r"manipulator_inference.*"
MANIFESTS = tuple(f"manip_{network}" for network in NETWORKS)
INPUTS = r"cfg|infer_label\d*/z|gm.*/in"

_EMOTIONS = {"infer_label": ("happy",), "infer_label3": ("happy", "sad", "angry")}
_REFERENCES = {"infer_reference": 1, "infer_reference_multi": 2}


def replay(
    arrays: Mapping[str, np.ndarray], manifests: Mapping[str, Sequence[Mapping[str, Any]]], *, exact: bool
) -> Replayed:
    """Everything a golden of the manipulator's inference holds.

    Args:
      arrays: Arrays of the file; the configuration, the noise of styles and the points of medians are read.
      manifests: Entries of the networks' state dicts.
      exact: Nothing is computed then: the golden has no float64 twins.
    """
    if exact:
        return Replayed()
    # Accelerators would multiply in TensorFloat-32 or bfloat16 otherwise.
    with jax.default_matmul_precision("highest"):
        results = _programme(arrays, manifests, np.float32)

    def exactly() -> Replayed:
        with jax.default_matmul_precision("highest"), jax.enable_x64(True):
            return Replayed(_programme(arrays, manifests, np.float64))

    points = {name: array for name, array in arrays.items() if name.startswith("gm") and name.endswith("/in")}
    medians = {name.replace("/in", "/out"): geometric_median(array) for name, array in points.items()}
    return Replayed(tensors=results | medians, exact=exactly)


def _programme(
    arrays: Mapping[str, np.ndarray], manifests: Mapping[str, Sequence[Mapping[str, Any]]], dtype: DTypeLike
) -> dict[str, np.ndarray]:
    """Results of the published programme on its four tasks."""
    seed, frames, window = arrays["cfg"].tolist()
    manipulator = _manipulator(manifests, seed, window, dtype)
    size = manipulator.settings.coefficients

    def clip(name: str, length: int) -> np.ndarray:
        return recipe.make_input(f"manip.infer.{name}", (length, size), seed).astype(dtype)

    styles = {}
    for name, emotions in _EMOTIONS.items():
        labels = [EMOTIONS.index(emotion) for emotion in emotions]
        styles[name] = label_styles(manipulator, labels, arrays[f"{name}/z"][0].astype(dtype))
    for name, count in _REFERENCES.items():
        clips = [clip(f"ref{number}", window + 4 + number) for number in range(count)]
        styles[name] = np.stack([reference_style(manipulator, reference) for reference in clips])
    results = {}
    for name, own in styles.items():
        results[f"{name}/styles"] = own
        results[f"{name}/gaussian_window"] = gaussian_weights(window)
        output = manipulate_coefficients(manipulator, clip("src", frames), own, compat="released")
        results[f"{name}/output"] = output
    return results


def _manipulator(
    manifests: Mapping[str, Sequence[Mapping[str, Any]]], seed: int, window: int, dtype: DTypeLike
) -> Manipulator:
    state_dicts = {
        network: recipe.make_weights(manifests[f"manip_{network}"], seed, prefix=f"manip.{network}.")
        for network in NETWORKS
    }
    settings = dataclasses.replace(manipulator_settings(state_dicts), window=window)
    variables = variables_from_state_dicts(state_dicts, settings)
    return Manipulator(jax.tree.map(lambda leaf: leaf.astype(dtype), variables), settings)
