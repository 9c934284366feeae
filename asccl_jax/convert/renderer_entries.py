"""State dicts of the renderer's networks to Flax variables and back.

Only NumPy: reading and writing the `.pth` files themselves is `DECA_torch_bridge`'s part. Both directions are strict.
Every missing, unexpected, mis-shaped or non-finite entry of all networks is named in one error, and nothing is guessed.

Published checkpoints hold every tensor of a residual block twice, as `conv_block` and as `resnetblock_sequential`:
either will do, both must agree, both are written. They number a discriminator's scales from the lowest resolution up,
and carry running statistics that neither training nor test ever uses.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from asccl_jax.convert.entries import value_faults
from asccl_jax.errors import InputError
from asccl_jax.models.renderer import IMAGE_CHANNELS, network_names, scale_widths
from asccl_jax.models.vgg import PUBLISHED_WIDTHS, STAGE_CONVOLUTIONS
from asccl_jax.settings import RendererSettings
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Variables

__all__ = [
    "FILE_NAMES",
    "StateDicts",
    "params_from_state_dicts",
    "renderer_settings",
    "state_dicts_from_params",
    "statistics_from_state_dicts",
    "vgg_from_state_dict",
]

StateDicts = dict[str, dict[str, np.ndarray]]
"""Arrays by published key, by network."""

FILE_NAMES = {"generator": "G", "discriminator": "D", "mouth_discriminator": "Dm", "eyes_discriminator": "De"}
"""What published files, `EPOCH_net_NAME.pth`, call the networks."""

_ENCODERS = (("model_down_seg", "conditioning_encoder"), ("model_down_img", "previous_encoder"))
_FRESH = {"mean": np.zeros, "var": np.ones}


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One tensor under all its names.

    Attributes:
      keys: Its keys in the network's state dict; two for what is registered twice.
      path: Its place in the network's tree: of parameters or, where the leaf is "mean" or "var", of statistics; a
        "count" has none.
      shape: PyTorch's shape.
      transposed: Whether it is the kernel of a transposed convolution.
    """

    keys: tuple[str, ...]
    path: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def is_param(self) -> bool:
        return self.path[-1] in ("kernel", "bias")

    def to_flax(self, array: np.ndarray) -> np.ndarray:
        if self.path[-1] != "kernel":
            return np.asarray(array)
        array = np.asarray(array)[:, :, ::-1, ::-1] if self.transposed else np.asarray(array)
        return np.ascontiguousarray(array.transpose(*((2, 3, 0, 1) if self.transposed else (2, 3, 1, 0))))

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        if self.path[-1] != "kernel":
            return np.asarray(array)
        array = np.asarray(array)[::-1, ::-1] if self.transposed else np.asarray(array)
        return np.ascontiguousarray(array.transpose(*((2, 3, 0, 1) if self.transposed else (3, 2, 0, 1))))


def params_from_state_dicts(
    state_dicts: Mapping[str, Mapping[str, np.ndarray]], settings: RendererSettings
) -> Variables:
    """Returns the weights of a published checkpoint, by network; running statistics, which nothing uses, are left out.

    Args:
      state_dicts: State dicts by network; the values keep their type.
      settings: Networks the checkpoint belongs to; `settings_from_state_dicts` finds them.

    Raises:
      InputError: The keys, shapes or values do not fit; all that is wrong is listed.
    """
    return _trees(state_dicts, settings, lambda entry: entry.is_param)


def statistics_from_state_dicts(
    state_dicts: Mapping[str, Mapping[str, np.ndarray]], settings: RendererSettings
) -> Variables:
    """Returns a checkpoint's running statistics, by network: the collection "instance_stats".

    Raises:
      InputError: As `params_from_state_dicts`.
    """
    return _trees(state_dicts, settings, lambda entry: entry.path[-1] in _FRESH)


def state_dicts_from_params(
    params: Variables, settings: RendererSettings, *, statistics: Variables | None = None
) -> StateDicts:
    """Returns state dicts that load, strictly, into the published PyTorch modules.

    Args:
      params: Weights by network; the values keep their type.
      settings: Networks they belong to.
      statistics: Running statistics by network; fresh ones are written where there are none.

    Raises:
      InputError: The tree or its shapes do not fit; all that is wrong is listed.
    """
    names = network_names(settings)
    expected = {
        "/".join((name, *entry.path)): entry.to_flax(np.empty(entry.shape, np.bool_)).shape
        for name in names
        for entry in _entries(name, settings)
        if entry.is_param
    }
    differences = shape_differences(named_shapes(params), expected)
    if differences:
        raise InputError(f"renderer weights do not fit the networks of their settings: {'; '.join(differences)}")

    def array_of(name: str, entry: _Entry) -> np.ndarray:
        leaf = entry.path[-1]
        if leaf == "count":
            return np.zeros((), np.int64)
        if not entry.is_param and statistics is None:
            return _FRESH[leaf](entry.shape, np.float32)
        node: Any = params[name] if entry.is_param else (statistics or {})[name]
        for part in entry.path:
            node = node[part]
        return entry.to_torch(node)

    return {
        name: {key: array_of(name, entry) for entry in _entries(name, settings) for key in entry.keys} for name in names
    }


def renderer_settings(
    state_dicts: Mapping[str, Mapping[str, np.ndarray]], *, image_size: int = 256, roi_size: int = 72
) -> RendererSettings:
    """Returns the settings that the shapes in a checkpoint tell; the sides of images and regions they do not.

    Raises:
      InputError: A network, or an entry that tells a size, is missing or has another rank; all such are listed.
    """
    faults: list[str] = []

    def shape(name: str, key: str) -> tuple[int, ...]:
        found = np.shape(state_dicts.get(name, {}).get(key, 0.0))
        if len(found) != 4:
            missing = key not in state_dicts.get(name, {})
            faults.append(f"{name}.{key} {'is missing' if missing else f'has shape {found}, expected 4 axes'}")
        return found if len(found) == 4 else (1,) * 4

    def count(name: str, pattern: str) -> int:
        return len({match[1] for key in state_dicts.get(name, {}) if (match := re.fullmatch(pattern, key))})

    first, images = (shape("generator", f"{published}.1.weight") for published, _ in _ENCODERS)
    scales = count("discriminator", r"scale(\d+)_layer0\.0\.weight")
    previous = max(images[1] // IMAGE_CHANNELS, 1)
    sizes: dict[str, Any] = {
        "conditioning_channels": max(first[1] // (previous + 1), 1),
        "context_frames": previous + 1,
        "previous_frames": previous,
        "generator_width": first[0],
        "downsamplings": count("generator", r"model_up_img\.(\d+)\.weight"),
        "residual_blocks": sum(
            count("generator", rf"{part}\.(\d+)\.(?:conv_block|resnetblock_sequential)\.1\.weight")
            for part in ("model_down_seg", "model_res_img")
        ),
        "discriminator_width": shape("discriminator", f"scale{max(scales - 1, 0)}_layer0.0.weight")[0],
        "discriminator_scales": scales,
        "discriminator_layers": count("discriminator", r"scale0_layer(\d+)\.0\.weight") - 2,
        "mouth": "mouth_discriminator" in state_dicts,
        "eyes": "eyes_discriminator" in state_dicts,
    }
    if faults:
        raise InputError(f"not a renderer checkpoint: {'; '.join(faults)}")
    return RendererSettings(**sizes, image_size=image_size, roi_size=min(roi_size, image_size))


def _trees(state_dicts: Mapping[str, Mapping[str, np.ndarray]], settings: RendererSettings, wanted: Any) -> Variables:
    _check(state_dicts, settings)
    return {
        name: traverse_util.unflatten_dict(
            {
                entry.path: entry.to_flax(_found(state_dicts[name], entry)[0])
                for entry in _entries(name, settings)
                if wanted(entry)
            }
        )
        for name in network_names(settings)
    }


def _found(state_dict: Mapping[str, np.ndarray], entry: _Entry) -> list[np.ndarray]:
    return [state_dict[key] for key in entry.keys if key in state_dict]


def _check(state_dicts: Mapping[str, Mapping[str, np.ndarray]], settings: RendererSettings) -> None:
    """Raises one `InputError` that lists every missing, unexpected, mis-shaped, contradictory and non-finite entry."""
    entries = {name: tuple(_entries(name, settings)) for name in network_names(settings)}
    found = {f"{name}.{key}": np.asarray(value) for name, part in state_dicts.items() for key, value in part.items()}
    expected: dict[str, tuple[int, ...]] = {}
    contradictions: list[str] = []
    for name, of_network in entries.items():
        for entry in of_network:
            names = [f"{name}.{key}" for key in entry.keys]
            # Of two names either will do.
            expected |= dict.fromkeys([key for key in names if key in found] or names[:1], entry.shape)
            arrays = _found(state_dicts.get(name, {}), entry)
            if any(not np.array_equal(arrays[0], array) for array in arrays[1:]):
                contradictions.append(f"{' and '.join(names)} differ, expected two names of one tensor")
    problems = [*shape_differences({key: array.shape for key, array in found.items()}, expected), *contradictions]
    real = {key: array for key, array in found.items() if not key.endswith("num_batches_tracked")}
    problems += value_faults({key: array for key, array in real.items() if key in expected})
    if problems:
        raise InputError(f"renderer checkpoint does not fit the networks of its settings: {'; '.join(problems)}")


def _entries(name: str, settings: RendererSettings) -> Iterator[_Entry]:
    """Yields a network's tensors in state-dict order."""
    yield from _generator(settings) if name == "generator" else _discriminator(settings)


def _generator(settings: RendererSettings) -> Iterator[_Entry]:
    levels = settings.downsamplings
    widths = [settings.generator_width * 2**level for level in range(levels + 1)]
    context = settings.context_frames * settings.conditioning_channels
    previous = settings.previous_frames * IMAGE_CHANNELS
    for (published, ours), channels in zip(_ENCODERS, (context, previous), strict=True):
        for level, (inputs, width) in enumerate(zip((channels, *widths), widths, strict=False)):
            shape = (width, inputs, *((3, 3) if level else (7, 7)))
            yield from _convolution((f"{published}.{1 + 3 * level}",), (ours, f"conv{level}"), shape)
            yield from _norm((f"{published}.{2 + 3 * level}",), (ours, f"norm{level}"), width)
        for number in range(settings.encoder_blocks):
            position = 3 * levels + 4 + number
            yield from _residual_block(f"{published}.{position}", (ours, f"block{number}"), widths[-1])
    for number in range(settings.decoder_blocks):
        yield from _residual_block(f"model_res_img.{number}", ("decoder", f"block{number}"), widths[-1])
    for level in range(levels):
        shape = (widths[-1 - level], widths[-2 - level], 3, 3)
        key = f"model_up_img.{3 * level}"
        yield from _convolution((key,), ("decoder", f"up{level}"), shape, transposed=True)
        yield from _norm((f"model_up_img.{3 * level + 1}",), ("decoder", f"norm{level}"), widths[-2 - level])
    yield from _convolution(("model_final_img.1",), ("decoder", "last"), (IMAGE_CHANNELS, widths[0], 7, 7))


def _residual_block(published: str, ours: tuple[str, ...], width: int) -> Iterator[_Entry]:
    names = (f"{published}.conv_block", f"{published}.resnetblock_sequential")
    for number, (conv, norm) in enumerate(((1, 2), (5, 6))):
        keys = tuple(f"{name}.{conv}" for name in names)
        yield from _convolution(keys, (*ours, f"conv{number}"), (width, width, 3, 3))
        yield from _norm(tuple(f"{name}.{norm}" for name in names), (*ours, f"norm{number}"), width)


def _discriminator(settings: RendererSettings) -> Iterator[_Entry]:
    for published in range(settings.discriminator_scales):
        # Scale 0 of published names is the lowest resolution; here it is the full one.
        scale = settings.discriminator_scales - 1 - published
        inputs = settings.conditioning_channels + IMAGE_CHANNELS
        widths = scale_widths(settings, scale)
        for layer, width in enumerate(widths):
            key, path = f"scale{published}_layer{layer}", f"scale{scale}"
            yield from _convolution((f"{key}.0",), (path, f"layer{layer}"), (width, inputs, 4, 4))
            if 0 < layer < len(widths) - 1:
                yield from _norm((f"{key}.1",), (path, f"norm{layer}"), width)
            inputs = width


def _convolution(
    keys: tuple[str, ...], path: tuple[str, ...], shape: tuple[int, ...], *, transposed: bool = False
) -> Iterator[_Entry]:
    yield _Entry(tuple(f"{key}.weight" for key in keys), (*path, "kernel"), shape, transposed)
    yield _Entry(tuple(f"{key}.bias" for key in keys), (*path, "bias"), (shape[1 if transposed else 0],))


def _norm(keys: tuple[str, ...], path: tuple[str, ...], width: int) -> Iterator[_Entry]:
    leaves = (
        ("running_mean", "mean", (width,)),
        ("running_var", "var", (width,)),
        ("num_batches_tracked", "count", ()),
    )
    for published, ours, shape in leaves:
        yield _Entry(tuple(f"{key}.{published}" for key in keys), (*path, ours), shape)


# torchvision's state dict of VGG-19 to Flax weights; strict about what is needed, and nothing is guessed.

_ALL_CONVOLUTIONS = (2, 2, 4, 4, 4)


def vgg_from_state_dict(state_dict: Mapping[str, np.ndarray], widths: tuple[int, ...] = PUBLISHED_WIDTHS) -> Variables:
    """Returns the weights of the convolutions up to `relu5_1`; what comes after them is ignored.

    Args:
      state_dict: Arrays by torchvision's key, `features.0.weight` and on; the values keep their type.
      widths: Channels at each resolution.

    Raises:
      InputError: Keys that are needed are missing or do not fit, or keys that VGG-19 does not have; all are listed.
    """
    expected = {key: shape for key, _, shape in _vgg_entries(widths)}
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
        for key, path, _ in _vgg_entries(widths)
    }
    return traverse_util.unflatten_dict(flat)


def _vgg_entries(widths: tuple[int, ...]) -> Iterator[tuple[str, tuple[str, str], tuple[int, ...]]]:
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
