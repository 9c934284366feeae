"""State dicts of the manipulator's four networks to Flax variables and back.

Only NumPy: reading and writing the `.pth` file itself is `DECA_torch_bridge`'s part. Both directions are strict. Every
missing, unexpected, mis-shaped or non-finite entry of all four networks is named in one error, and nothing is guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from asccl_jax.errors import InputError
from asccl_jax.models.manipulator import NETWORKS
from asccl_jax.settings import ManipulatorSettings
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Variables

__all__ = [
    "StateDicts",
    "manipulator_settings",
    "state_dicts_from_variables",
    "variables_from_state_dicts",
]

StateDicts = dict[str, dict[str, np.ndarray]]
"""Arrays by published key, by network."""

_DIRECTIONS = (("", "forward"), ("_reverse", "backward"))


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One tensor under both its names.

    Attributes:
      key: Its key in the network's state dict.
      path: Its place in the network's tree.
      shape: PyTorch's shape.
      row: Its place on the first axis of a Flax array that holds one for each emotion; None if it is a whole array.
    """

    key: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    row: int | None = None


def variables_from_state_dicts(
    state_dicts: Mapping[str, Mapping[str, np.ndarray]], settings: ManipulatorSettings
) -> Variables:
    """Returns the Flax variables of a published checkpoint.

    Args:
      state_dicts: The four state dicts by network; the values keep their type.
      settings: Networks the checkpoint belongs to; `settings_from_state_dicts` finds them. With `lstm_biases=1` the two
        bias vectors become their sum, which computes the same.

    Raises:
      InputError: The keys, shapes or values do not fit; all that is wrong is listed.
    """
    _check(state_dicts, settings)
    variables: Variables = {}
    for name in NETWORKS:
        tree: dict[str, Any] = {}
        stacks: dict[tuple[str, ...], list[np.ndarray]] = {}
        for entry in _entries(name, dataclasses.replace(settings, lstm_biases=2)):
            array = np.ascontiguousarray(np.asarray(state_dicts[name][entry.key]).T)
            if entry.row is None:
                _put(tree, entry.path, array)
            else:
                stacks.setdefault(entry.path, []).append(array)
        for path, rows in stacks.items():
            _put(tree, path, np.stack(rows))
        variables[name] = tree if settings.lstm_biases == 2 or "lstm" not in tree else _with_summed_biases(tree)
    return variables


def state_dicts_from_variables(variables: Variables, settings: ManipulatorSettings) -> StateDicts:
    """Returns state dicts that load, strictly, into the published PyTorch modules.

    Args:
      variables: Weights of the four networks; the values keep their type.
      settings: Networks they belong to. With `lstm_biases=1` PyTorch's second bias vector is written as zeros.

    Raises:
      InputError: The tree or its shapes do not fit; all that is wrong is listed.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for name in NETWORKS:
        for entry in _entries(name, settings):
            shape = entry.shape[::-1] if entry.row is None else (settings.emotions, *entry.shape[::-1])
            expected["/".join((name, *entry.path))] = shape
    differences = shape_differences(named_shapes(variables), expected)
    if differences:
        raise InputError(f"manipulator variables do not fit the networks of their settings: {'; '.join(differences)}")

    def array_of(name: str, entry: _Entry) -> np.ndarray:
        node: Any = variables[name]
        for part in entry.path:
            if part == "recurrent_bias" and settings.lstm_biases == 1:
                return np.zeros(entry.shape, np.asarray(node["input_bias"]).dtype)
            node = node[part]
        array = np.asarray(node) if entry.row is None else np.asarray(node)[entry.row]
        return np.ascontiguousarray(array.T)

    return {
        name: {
            entry.key: array_of(name, entry) for entry in _entries(name, dataclasses.replace(settings, lstm_biases=2))
        }
        for name in NETWORKS
    }


def manipulator_settings(state_dicts: Mapping[str, Mapping[str, np.ndarray]]) -> ManipulatorSettings:
    """Returns the settings that the shapes in a checkpoint tell; its window they do not, which is the published one.

    Raises:
      InputError: A network, or an entry that tells a size, is missing or has another rank; all such are listed.
    """
    faults: list[str] = []

    def shape(name: str, key: str, rank: int) -> tuple[int, ...]:
        found = np.shape(state_dicts.get(name, {}).get(key, 0.0))
        if len(found) == rank:
            return found
        missing = key not in state_dicts.get(name, {})
        faults.append(f"{name}.{key} {'is missing' if missing else f'has shape {found}, expected {rank} axes'}")
        return (0,) * rank

    first = shape("generator", "seq1.0.weight", 2)
    mapping = shape("mapping_network", "shared.0.weight", 2)
    style = shape("mapping_network", "unshared.0.2.weight", 2)
    encoder = [shape("style_encoder", f"seq{part}.{layer}.weight", 2)[0] for part in (1, 2) for layer in (0, 2)]
    sizes: dict[str, Any] = {
        "coefficients": shape("generator", "seq2.4.bias", 1)[0],
        "emotions": shape("discriminator", "seq2.4.bias", 1)[0],
        "style_size": style[0],
        "latent_size": mapping[1],
        "hidden_size": mapping[0],
        "generator_width": first[0],
        "generator_head_width": shape("generator", "seq2.0.bias", 1)[0],
        "encoder_widths": (encoder[0], encoder[1]),
        "encoder_lstm_width": shape("style_encoder", "LSTM.weight_hh_l0", 2)[1],
        "encoder_head_widths": (encoder[2], encoder[3]),
        "lstm_layers": sum(f"LSTM.weight_hh_l{layer}" in state_dicts.get("generator", {}) for layer in range(64)),
    }
    if faults:
        raise InputError(f"not a manipulator checkpoint: {'; '.join(faults)}")
    return ManipulatorSettings(**sizes)


def _entries(name: str, settings: ManipulatorSettings) -> Iterator[_Entry]:
    """Yields a network's tensors in state-dict order."""
    if name == "mapping_network":
        hidden = settings.hidden_size
        yield from _linear("shared", settings.latent_size, (hidden,) * 3)
        for emotion in range(settings.emotions):
            for number, outputs in enumerate((hidden, settings.style_size)):
                key = f"unshared.{emotion}.{2 * number}"
                yield _Entry(f"{key}.weight", (f"unshared{number}", "kernel"), (outputs, hidden), emotion)
                yield _Entry(f"{key}.bias", (f"unshared{number}", "bias"), (outputs,), emotion)
        return
    if name == "generator":
        before: tuple[int, ...] = (settings.generator_width,) * 2
        inputs, width = settings.coefficients + settings.style_size, settings.generator_width
        after: tuple[int, ...] = (*(settings.generator_head_width,) * 2, settings.coefficients)
    else:
        before = settings.encoder_widths
        inputs, width = settings.coefficients, settings.encoder_lstm_width
        outputs = settings.style_size if name == "style_encoder" else settings.emotions
        after = (*settings.encoder_head_widths, outputs)
    yield from _linear("seq1", inputs, before)
    yield from _lstm(before[-1], width, settings)
    yield from _linear("seq2", 2 * width, after)


def _linear(part: str, inputs: int, widths: Sequence[int]) -> Iterator[_Entry]:
    # In the published rows every other module is a ReLU.
    for number, width in enumerate(widths):
        yield _Entry(f"{part}.{2 * number}.weight", (part, f"linear{number}", "kernel"), (width, inputs))
        yield _Entry(f"{part}.{2 * number}.bias", (part, f"linear{number}", "bias"), (width,))
        inputs = width


def _lstm(inputs: int, width: int, settings: ManipulatorSettings) -> Iterator[_Entry]:
    for layer in range(settings.lstm_layers):
        for suffix, direction in _DIRECTIONS:
            parts = [("weight_ih", "input_kernel", (4 * width, inputs))]
            parts += [("weight_hh", "recurrent_kernel", (4 * width, width))]
            biases = (("bias_ih", "input_bias"), ("bias_hh", "recurrent_bias"))
            shapes = [*parts, *((*bias, (4 * width,)) for bias in biases[: settings.lstm_biases])]
            for key, leaf, shape in shapes:
                yield _Entry(f"LSTM.{key}_l{layer}{suffix}", ("lstm", f"layer{layer}", direction, leaf), shape)
        inputs = 2 * width


def _check(state_dicts: Mapping[str, Mapping[str, np.ndarray]], settings: ManipulatorSettings) -> None:
    """Raises one `InputError` that lists every missing, unexpected, mis-shaped and non-finite entry."""
    found = {f"{name}.{key}": np.asarray(value) for name, part in state_dicts.items() for key, value in part.items()}
    in_full = dataclasses.replace(settings, lstm_biases=2)
    expected = {f"{name}.{entry.key}": entry.shape for name in NETWORKS for entry in _entries(name, in_full)}
    problems = shape_differences({key: array.shape for key, array in found.items()}, expected)
    for key in sorted(expected.keys() & found.keys()):
        if not np.issubdtype(found[key].dtype, np.floating):
            problems.append(f"{key} holds {found[key].dtype}, expected real numbers")
        elif not np.isfinite(found[key]).all():
            problems.append(f"{key} holds values that are not finite")
    if problems:
        raise InputError(f"manipulator checkpoint does not fit the networks of its settings: {'; '.join(problems)}")


def _put(tree: dict[str, Any], path: tuple[str, ...], array: np.ndarray) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = array


def _with_summed_biases(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns a network whose LSTM has one bias vector in place of two."""

    def merged(direction: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bias = direction["input_bias"] + direction["recurrent_bias"]
        return {
            "input_kernel": direction["input_kernel"],
            "recurrent_kernel": direction["recurrent_kernel"],
            "input_bias": bias,
        }

    layers = {name: {side: merged(part) for side, part in layer.items()} for name, layer in tree["lstm"].items()}
    return {**tree, "lstm": layers}
