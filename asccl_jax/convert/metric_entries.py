"""State dict of a correlation metric, or of the ArcFace trunk it starts from, to Flax variables and back.

Only NumPy: reading and writing the `.pth` file itself is `DECA_torch_bridge`'s part. Both directions are strict. Every
missing, unexpected, mis-shaped or non-finite entry is named in one error, and nothing is guessed.

Three groups of entries have no counterpart in Flax:

- `num_batches_tracked` of every BatchNorm is not used by the network. It may be absent and is written as 0.
- `resnet50.bn2` (in ArcFace's file `bn2`), a BatchNorm after the last stage, is in the published module but never
  called. It is checked when read, dropped, and written back as the identity.
- `fc` and `features` of an ArcFace file make the identity embedding; the metric has no use for them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from asccl_jax.convert.entries import (
    NORM_ENTRIES,
    Entry,
    conv_entry,
    counter_of,
    entry_faults,
    gather,
    linear_entries,
    norm_entries,
)
from asccl_jax.errors import InputError
from asccl_jax.settings import STAGE_BLOCKS, MetricSettings
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Variables

__all__ = [
    "ConvertedMetric",
    "blocks_of_keys",
    "final_norm_shapes",
    "flax_from_arcface",
    "flax_from_state_dict",
    "recognise",
    "settings_from_state_dict",
    "state_dict_from_flax",
    "trunk_entries",
]

# The tensors of an IResNet's trunk under both their names, and its number of blocks as the keys tell it.

Four = tuple[int, int, int, int]


def trunk_entries(blocks: Four, widths: Four, *, prefix: str) -> Iterator[Entry]:
    """Yields the trunk's tensors in state-dict order; the BatchNorm after the last stage is not among them.

    Args:
      blocks: Residual blocks of each stage.
      widths: Channels of each stage.
      prefix: What stands before the published keys, such as `resnet50.`; in Flax the trunk is `trunk`.
    """
    width_in = widths[0]
    stem = ("trunk", "stem")
    yield conv_entry(f"{prefix}conv1", (*stem, "conv"), (width_in, 3, 3, 3))
    yield from norm_entries(f"{prefix}bn1", (*stem, "norm"), width_in)
    yield _slopes(f"{prefix}prelu", stem, width_in)
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for block in range(count):
            path = ("trunk", f"stage{stage}", f"block{block}")
            yield from _block_entries(f"{prefix}layer{stage}.{block}.", path, width_in, width, shortcut=block == 0)
            width_in = width


def final_norm_shapes(width: int, *, prefix: str) -> dict[str, tuple[int, ...]]:
    """Returns keys and PyTorch's shapes of the BatchNorm after the last stage."""
    return {f"{prefix}bn2.{name}": (width,) for name, _, _ in NORM_ENTRIES}


def blocks_of_keys(keys: Iterable[str], *, prefix: str) -> Four:
    """Returns the number of residual blocks of each stage that a state dict has."""
    found: list[set[int]] = [set(), set(), set(), set()]
    for key in keys:
        match = re.match(rf"{re.escape(prefix)}layer([1-4])\.(\d+)\.", key)
        if match:
            found[int(match[1]) - 1].add(int(match[2]))
    first, second, third, fourth = (len(stage) for stage in found)
    return first, second, third, fourth


def _block_entries(prefix: str, path: tuple[str, ...], width_in: int, width: int, *, shortcut: bool) -> Iterator[Entry]:
    yield from norm_entries(f"{prefix}bn1", (*path, "norm1"), width_in)
    yield conv_entry(f"{prefix}conv1", (*path, "conv1"), (width, width_in, 3, 3))
    yield from norm_entries(f"{prefix}bn2", (*path, "norm2"), width)
    yield _slopes(f"{prefix}prelu", path, width)
    yield conv_entry(f"{prefix}conv2", (*path, "conv2"), (width, width, 3, 3))
    yield from norm_entries(f"{prefix}bn3", (*path, "norm3"), width)
    if shortcut:
        yield conv_entry(f"{prefix}downsample.0", (*path, "shortcut_conv"), (width, width_in, 1, 1))
        yield from norm_entries(f"{prefix}downsample.1", (*path, "shortcut_norm"), width)


def _slopes(key: str, path: tuple[str, ...], width: int) -> Entry:
    return Entry(f"{key}.weight", ("params", *path, "activation", "slope"), (width,))


TRUNK = "resnet50."
"""Prefix of the trunk's keys in a metric checkpoint, whatever its depth."""

_ARCFACE_ONLY = re.compile(r"^(fc|features)\.")


@dataclasses.dataclass(frozen=True)
class ConvertedMetric:
    """Flax variables made from a file that does not hold the whole metric.

    Attributes:
      variables: "params" and "batch_stats" of the metric.
      unused: Keys of the file that the metric has no use for.
      drawn: Paths of parameters the file does not hold, drawn at random instead.
    """

    variables: Variables
    unused: tuple[str, ...]
    drawn: tuple[str, ...]


def flax_from_state_dict(state_dict: Mapping[str, np.ndarray], settings: MetricSettings) -> Variables:
    """Returns the Flax variables of a full metric checkpoint.

    Args:
      state_dict: Arrays under the published names: `resnet50.*` and `mlp.*`, no other prefix.
      settings: Network the checkpoint belongs to; `settings_from_state_dict` finds its depth.

    Returns:
      "params" and "batch_stats", float32 NumPy arrays.

    Raises:
      InputError: The keys, shapes or values do not fit; all that is wrong is listed.
    """
    entries = [*_trunk_entries(settings, TRUNK), *_head_entries(settings)]
    _check(
        state_dict, {entry.key: entry.shape for entry in entries} | _final_norm(settings, TRUNK), "metric checkpoint"
    )
    return gather(state_dict, entries)


def flax_from_arcface(state_dict: Mapping[str, np.ndarray], settings: MetricSettings, *, seed: int) -> ConvertedMetric:
    """Returns a metric whose trunk is an ArcFace IResNet and whose heads are drawn anew, ready to be trained.

    Args:
      state_dict: ArcFace's `backbone.pth`: the trunk without prefix; `fc.*` and `features.*` may be there.
      settings: Network of the metric; its trunk must be the file's.
      seed: Seed of the heads, which the file does not hold; uniform within 1/sqrt(inputs), PyTorch's default.

    Raises:
      InputError: The keys, shapes or values of the trunk do not fit; all that is wrong is listed.
    """
    unused = tuple(sorted(key for key in state_dict if _ARCFACE_ONLY.match(key)))
    trunk = {key: array for key, array in state_dict.items() if key not in unused}
    entries = list(_trunk_entries(settings, ""))
    _check(trunk, {entry.key: entry.shape for entry in entries} | _final_norm(settings, ""), "ArcFace backbone")

    heads = list(_head_entries(settings))
    random = np.random.default_rng(seed)
    drawn = {}
    for entry in heads:
        bound = 1 / np.sqrt(settings.stage_widths[_stage_of(entry)])
        drawn[entry.key] = random.uniform(-bound, bound, entry.shape).astype(np.float32)
    variables = gather({**trunk, **drawn}, entries + heads)
    return ConvertedMetric(variables, unused=unused, drawn=tuple("/".join(entry.path[1:]) for entry in heads))


def state_dict_from_flax(variables: Variables, settings: MetricSettings) -> dict[str, np.ndarray]:
    """Returns a state dict that loads, strictly, into the published PyTorch module.

    Args:
      variables: "params" and "batch_stats" of a metric with these settings.
      settings: Network the variables belong to.

    Returns:
      Arrays under the published names in the published order: float32, and int64 for `num_batches_tracked`.

    Raises:
      InputError: The tree or its shapes do not fit; all that is wrong is listed.
    """
    entries = [*_trunk_entries(settings, TRUNK), *_head_entries(settings)]
    differences = shape_differences(
        named_shapes(variables), {"/".join(entry.path): entry.flax_shape for entry in entries}
    )
    if differences:
        raise InputError(f"metric variables do not fit the network of their settings: {'; '.join(differences)}")

    state_dict: dict[str, np.ndarray] = {}
    for entry in entries:
        if entry.key == "mlp.0.weight":
            state_dict |= _identity_norm(f"{TRUNK}bn2", settings.stage_widths[-1])
        state_dict[entry.key] = entry.to_torch(_leaf(variables, entry.path).astype(np.float32))
        if entry.key.endswith("running_var"):
            state_dict[counter_of(entry.key)] = np.zeros((), np.int64)
    return state_dict


def recognise(state_dict: Mapping[str, np.ndarray]) -> Literal["metric", "arcface"]:
    """Returns what a state dict holds: a whole metric, or only the ArcFace trunk.

    Raises:
      InputError: Neither; the message shows some of its keys.
    """
    if any(key.startswith((TRUNK, "mlp.")) for key in state_dict):
        return "metric"
    if "conv1.weight" in state_dict and any(key.startswith("layer1.0.") for key in state_dict):
        return "arcface"
    shown = ", ".join(list(state_dict)[:5]) or "none at all"
    raise InputError(
        f"not a correlation metric: expected keys {TRUNK}* and mlp.* (metric) or conv1.weight and layer1.* (ArcFace"
        f" backbone), found {shown}"
    )


def settings_from_state_dict(state_dict: Mapping[str, np.ndarray], settings: MetricSettings) -> MetricSettings:
    """Returns the settings with the IResNet depth that the keys of a state dict tell.

    Args:
      state_dict: A metric checkpoint or an ArcFace backbone.
      settings: Everything else. Where it names its own `stage_blocks` it is returned as it is.

    Raises:
      InputError: The number of blocks a stage is that of no IResNet of depth 18, 34, 50 or 100.
    """
    if settings.stage_blocks is not None:
        return settings
    prefix = TRUNK if recognise(state_dict) == "metric" else ""
    blocks = blocks_of_keys(state_dict, prefix=prefix)
    for depth, expected in STAGE_BLOCKS.items():
        if blocks == expected:
            return dataclasses.replace(settings, depth=depth)
    known = "; ".join(f"{depth}: {expected}" for depth, expected in STAGE_BLOCKS.items())
    raise InputError(
        f"state dict has {blocks} residual blocks in layer1 to layer4, which is no IResNet of known depth ({known});"
        " the file is incomplete, or its stage_blocks must be given"
    )


def _trunk_entries(settings: MetricSettings, prefix: str) -> Iterator[Entry]:
    return trunk_entries(settings.blocks, settings.stage_widths, prefix=prefix)


def _head_entries(settings: MetricSettings) -> Iterator[Entry]:
    """Yields the heads' tensors; the published list counts linear, ReLU, linear of all stages in one row."""
    for stage, width in enumerate(settings.stage_widths):
        for index, layer, outputs in ((3 * stage, "hidden", width), (3 * stage + 2, "output", width // 4)):
            yield from linear_entries(f"mlp.{index}", ("heads", f"stage{stage + 1}", layer), width, outputs)


def _stage_of(entry: Entry) -> int:
    return int(entry.path[2].removeprefix("stage")) - 1


def _final_norm(settings: MetricSettings, prefix: str) -> dict[str, tuple[int, ...]]:
    """Returns keys and shapes of the BatchNorm after the last stage, which is stored but never called."""
    return final_norm_shapes(settings.stage_widths[-1], prefix=prefix)


def _identity_norm(key: str, width: int) -> dict[str, np.ndarray]:
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    return {
        f"{key}.weight": ones,
        f"{key}.bias": zeros,
        f"{key}.running_mean": zeros.copy(),
        f"{key}.running_var": ones.copy(),
        f"{key}.num_batches_tracked": np.zeros((), np.int64),
    }


def _check(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raises one `InputError` that lists every missing, unexpected, mis-shaped and non-finite entry."""
    problems = entry_faults(arrays, expected)
    if problems:
        raise InputError(f"{what} does not fit the network of its settings: {'; '.join(problems)}")


def _leaf(tree: Mapping[str, Any], path: tuple[str, ...]) -> np.ndarray:
    node: Any = tree
    for name in path:
        node = node[name]
    return np.asarray(node)
