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
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from asccl_jax.errors import InputError
from asccl_jax.settings import STAGE_BLOCKS, MetricSettings
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Variables

__all__ = [
    "ConvertedMetric",
    "flax_from_arcface",
    "flax_from_state_dict",
    "recognise",
    "settings_from_state_dict",
    "state_dict_from_flax",
]

TRUNK = "resnet50."
"""Prefix of the trunk's keys in a metric checkpoint, whatever its depth."""

_ARCFACE_ONLY = re.compile(r"^(fc|features)\.")
_NORM_ENTRIES = (
    ("weight", "params", "scale"),
    ("bias", "params", "bias"),
    ("running_mean", "batch_stats", "mean"),
    ("running_var", "batch_stats", "var"),
)
_LAYOUTS = {"conv": ((2, 3, 1, 0), (3, 2, 0, 1)), "linear": ((1, 0), (1, 0)), "vector": ((0,), (0,))}


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One tensor under both its names; `shape` is PyTorch's, `layout` the key of its two transpositions."""

    key: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    layout: str

    @property
    def flax_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in _LAYOUTS[self.layout][0])


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
    return _gather(state_dict, entries)


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
    variables = _gather({**trunk, **drawn}, entries + heads)
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
        array = _leaf(variables, entry.path).transpose(_LAYOUTS[entry.layout][1])
        state_dict[entry.key] = np.ascontiguousarray(array, dtype=np.float32)
        if entry.key.endswith("running_var"):
            state_dict[_counter_of(entry.key)] = np.zeros((), np.int64)
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
    found: list[set[int]] = [set(), set(), set(), set()]
    for key in state_dict:
        match = re.match(rf"{re.escape(prefix)}layer([1-4])\.(\d+)\.", key)
        if match:
            found[int(match[1]) - 1].add(int(match[2]))
    blocks = tuple(len(stage) for stage in found)
    for depth, expected in STAGE_BLOCKS.items():
        if blocks == expected:
            return dataclasses.replace(settings, depth=depth)
    known = "; ".join(f"{depth}: {expected}" for depth, expected in STAGE_BLOCKS.items())
    raise InputError(
        f"state dict has {blocks} residual blocks in layer1 to layer4, which is no IResNet of known depth ({known});"
        " the file is incomplete, or its stage_blocks must be given"
    )


def _trunk_entries(settings: MetricSettings, prefix: str) -> Iterator[_Entry]:
    """Yields the trunk's tensors in state-dict order; the final, unused BatchNorm is not among them."""
    width_in = settings.stage_widths[0]
    stem = ("trunk", "stem")
    yield _Entry(f"{prefix}conv1.weight", ("params", *stem, "conv", "kernel"), (width_in, 3, 3, 3), "conv")
    yield from _norm_entries(f"{prefix}bn1", (*stem, "norm"), width_in)
    yield _Entry(f"{prefix}prelu.weight", ("params", *stem, "activation", "slope"), (width_in,), "vector")
    for stage, (blocks, width) in enumerate(zip(settings.blocks, settings.stage_widths, strict=True), start=1):
        for block in range(blocks):
            path = ("trunk", f"stage{stage}", f"block{block}")
            yield from _block_entries(f"{prefix}layer{stage}.{block}.", path, width_in, width, shortcut=block == 0)
            width_in = width


def _block_entries(
    prefix: str, path: tuple[str, ...], width_in: int, width: int, *, shortcut: bool
) -> Iterator[_Entry]:
    def conv(name: str, flax_name: str, inputs: int, size: int) -> _Entry:
        return _Entry(
            f"{prefix}{name}.weight", ("params", *path, flax_name, "kernel"), (width, inputs, size, size), "conv"
        )

    yield from _norm_entries(f"{prefix}bn1", (*path, "norm1"), width_in)
    yield conv("conv1", "conv1", width_in, 3)
    yield from _norm_entries(f"{prefix}bn2", (*path, "norm2"), width)
    yield _Entry(f"{prefix}prelu.weight", ("params", *path, "activation", "slope"), (width,), "vector")
    yield conv("conv2", "conv2", width, 3)
    yield from _norm_entries(f"{prefix}bn3", (*path, "norm3"), width)
    if shortcut:
        yield conv("downsample.0", "shortcut_conv", width_in, 1)
        yield from _norm_entries(f"{prefix}downsample.1", (*path, "shortcut_norm"), width)


def _norm_entries(key: str, path: tuple[str, ...], width: int) -> Iterator[_Entry]:
    for name, collection, leaf in _NORM_ENTRIES:
        yield _Entry(f"{key}.{name}", (collection, *path, leaf), (width,), "vector")


def _head_entries(settings: MetricSettings) -> Iterator[_Entry]:
    """Yields the heads' tensors; the published list counts linear, ReLU, linear of all stages in one row."""
    for stage, width in enumerate(settings.stage_widths):
        for index, layer, outputs in ((3 * stage, "hidden", width), (3 * stage + 2, "output", width // 4)):
            path = ("params", "heads", f"stage{stage + 1}", layer)
            yield _Entry(f"mlp.{index}.weight", (*path, "kernel"), (outputs, width), "linear")
            yield _Entry(f"mlp.{index}.bias", (*path, "bias"), (outputs,), "vector")


def _stage_of(entry: _Entry) -> int:
    return int(entry.path[2].removeprefix("stage")) - 1


def _final_norm(settings: MetricSettings, prefix: str) -> dict[str, tuple[int, ...]]:
    """Returns keys and shapes of the BatchNorm after the last stage, which is stored but never called."""
    return {f"{prefix}bn2.{name}": (settings.stage_widths[-1],) for name, _, _ in _NORM_ENTRIES}


def _identity_norm(key: str, width: int) -> dict[str, np.ndarray]:
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    return {
        f"{key}.weight": ones,
        f"{key}.bias": zeros,
        f"{key}.running_mean": zeros.copy(),
        f"{key}.running_var": ones.copy(),
        f"{key}.num_batches_tracked": np.zeros((), np.int64),
    }


def _counter_of(key: str) -> str:
    return f"{key.rpartition('.')[0]}.num_batches_tracked"


def _check(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raises one `InputError` that lists every missing, unexpected, mis-shaped and non-finite entry."""
    counters = {_counter_of(key) for key in expected if key.endswith("running_var")}
    found = {key: np.shape(array) for key, array in arrays.items() if key not in counters}
    problems = shape_differences(found, expected)
    for key in expected.keys() & found.keys():
        array = np.asarray(arrays[key])
        if not np.issubdtype(array.dtype, np.floating):
            problems.append(f"{key} holds {array.dtype}, expected real numbers")
        elif not np.isfinite(array).all():
            problems.append(f"{key} holds values that are not finite")
    if problems:
        raise InputError(f"{what} does not fit the network of its settings: {'; '.join(problems)}")


def _gather(arrays: Mapping[str, np.ndarray], entries: list[_Entry]) -> Variables:
    """Returns the Flax tree of entries whose arrays are under their PyTorch keys."""
    variables: Variables = {"params": {}, "batch_stats": {}}
    for entry in entries:
        *parents, leaf = entry.path
        node: dict[str, Any] = variables
        for name in parents:
            node = node.setdefault(name, {})
        array = np.asarray(arrays[entry.key], dtype=np.float32)
        node[leaf] = np.ascontiguousarray(array.transpose(_LAYOUTS[entry.layout][0]))
    return variables


def _leaf(tree: Mapping[str, Any], path: tuple[str, ...]) -> np.ndarray:
    node: Any = tree
    for name in path:
        node = node[name]
    return np.asarray(node)
