"""State dicts of the networks that score faces to Flax variables; strict, and nothing is guessed.

Only NumPy: reading the files themselves is `DECA_torch_bridge`'s part. Every missing, unexpected, mis-shaped or
non-finite entry is named in one error. Maps that PyTorch flattens are (channel, row, column) there and (row, column,
channel) here; the linear layers behind them are permuted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from asccl_jax.convert.entries import Entry, conv_entry, entry_faults, gather, linear_entries, norm_entries
from asccl_jax.convert.metric_entries import blocks_of_keys, trunk_entries
from asccl_jax.errors import InputError
from asccl_jax.models.face_networks import (
    ATTENTION_WIDTH,
    BLOCKS,
    FRAMES,
    QUADRANTS,
    ArcFace,
    EfficientFace,
    ResNetFace,
    SyncNet,
)
from asccl_jax.settings import STAGE_BLOCKS
from asccl_jax.types import Variables
from asccl_jax.weights import FaceModule

__all__ = ["arcface_of_keys", "face_entries", "face_variables"]

Path = tuple[str, ...]

_KINDS = {ResNetFace: "ResNetFace-18", EfficientFace: "EfficientFace", ArcFace: "ArcFace", SyncNet: "SyncNet"}


def face_variables(module: FaceModule, state_dict: Mapping[str, np.ndarray]) -> Variables:
    """Returns the Flax variables of a published checkpoint.

    Args:
      module: Network the checkpoint is of.
      state_dict: Arrays under the published names, without `module.`; `num_batches_tracked` may be absent.

    Returns:
      "params" and "batch_stats", float32 NumPy arrays.

    Raises:
      InputError: The keys, shapes or values do not fit; all that is wrong is listed.
    """
    entries = list(face_entries(module))
    faults = entry_faults(state_dict, {entry.key: entry.shape for entry in entries})
    if faults:
        raise InputError(f"not a checkpoint of {_KINDS[type(module)]}: {'; '.join(faults)}")
    return gather(state_dict, entries)


def face_entries(module: FaceModule) -> Iterator[Entry]:
    """Yields the tensors of a network under both their names."""
    if isinstance(module, ResNetFace):
        yield from _resnet_face(module)
    elif isinstance(module, EfficientFace):
        yield from _efficient_face(module)
    elif isinstance(module, ArcFace):
        yield from _arcface(module)
    else:
        yield from _syncnet(module)


def arcface_of_keys(state_dict: Mapping[str, np.ndarray]) -> ArcFace:
    """Returns the published ArcFace whose depth, 50 or 100, is that of a state dict.

    Raises:
      InputError: The number of blocks a stage is that of neither.
    """
    blocks = blocks_of_keys(state_dict, prefix="")
    known = {depth: STAGE_BLOCKS[depth] for depth in (50, 100)}
    if blocks not in known.values():
        listed = "; ".join(f"{depth}: {expected}" for depth, expected in known.items())
        raise InputError(
            f"not a checkpoint of ArcFace: {blocks} residual blocks in layer1 to layer4, expected those of a known"
            f" depth ({listed}); it is another network, or incomplete"
        )
    return ArcFace(stage_blocks=blocks)


def _resnet_face(module: ResNetFace) -> Iterator[Entry]:
    width_in = module.widths[0]
    yield conv_entry("conv1", ("stem_conv",), (width_in, 1, 3, 3))
    yield from norm_entries("bn1", ("stem_norm",), width_in)
    yield _slope("prelu", ("stem_activation",))
    for stage, width in enumerate(module.widths, start=1):
        for block in range(BLOCKS):
            key, path = f"layer{stage}.{block}", f"stage{stage}_block{block}"
            yield from norm_entries(f"{key}.bn0", (path, "norm0"), width_in)
            yield conv_entry(f"{key}.conv1", (path, "conv1"), (width_in, width_in, 3, 3))
            yield from norm_entries(f"{key}.bn1", (path, "norm1"), width_in)
            yield _slope(f"{key}.prelu", (path, "activation"))
            yield conv_entry(f"{key}.conv2", (path, "conv2"), (width, width_in, 3, 3))
            yield from norm_entries(f"{key}.bn2", (path, "norm2"), width)
            if block == 0 and (stage > 1 or width != width_in):
                yield conv_entry(f"{key}.downsample.0", (path, "shortcut_conv"), (width, width_in, 1, 1))
                yield from norm_entries(f"{key}.downsample.1", (path, "shortcut_norm"), width)
            width_in = width
    yield from norm_entries("bn4", ("map_norm",), width_in)
    yield from _flattened("fc5", ("embedding",), width_in, module.image_size // 16, module.embedding)
    yield from norm_entries("bn5", ("embedding_norm",), module.embedding)


def _arcface(module: ArcFace) -> Iterator[Entry]:
    width = module.stage_widths[-1]
    yield from trunk_entries(module.stage_blocks, module.stage_widths, prefix="")
    yield from norm_entries("bn2", ("map_norm",), width)
    yield from _flattened("fc", ("embedding",), width, module.image_size // 16, module.embedding)
    yield from norm_entries("features", ("embedding_norm",), module.embedding)


def _efficient_face(module: EfficientFace) -> Iterator[Entry]:
    width_in = module.stem_width
    yield from _conv_norm("conv1.0", "conv1.1", ("stem",), (width_in, 3, 3, 3))
    yield from _local_features(module.stem_width, module.stage_widths[0])
    yield from _modulator(module.stage_widths[0])
    for stage, (width, units) in enumerate(zip(module.stage_widths, module.stage_units, strict=True), start=2):
        for unit in range(units):
            inputs = width_in if unit == 0 else width // 2
            yield from _unit(
                f"stage{stage}.{unit}", (f"stage{stage}_unit{unit}",), inputs, width // 2, halves=unit == 0
            )
        width_in = width
    yield from _conv_norm("conv5.0", "conv5.1", ("head",), (module.features, width_in, 1, 1))
    yield from linear_entries("fc", ("classes",), module.features, module.classes)


def _unit(key: str, path: Path, inputs: int, half: int, *, halves: bool) -> Iterator[Entry]:
    if halves:
        branch = f"{key}.branch1"
        yield from _conv_norm(f"{branch}.0", f"{branch}.1", (*path, "branch1_depthwise"), (inputs, 1, 3, 3))
        yield from _conv_norm(f"{branch}.2", f"{branch}.3", (*path, "branch1_mix"), (half, inputs, 1, 1))
    branch = f"{key}.branch2"
    yield from _conv_norm(f"{branch}.0", f"{branch}.1", (*path, "branch2_first"), (half, inputs, 1, 1))
    yield from _conv_norm(f"{branch}.3", f"{branch}.4", (*path, "branch2_depthwise"), (half, 1, 3, 3))
    yield from _conv_norm(f"{branch}.5", f"{branch}.6", (*path, "branch2_mix"), (half, half, 1, 1))


def _local_features(inputs: int, width: int) -> Iterator[Entry]:
    for number, quadrant in enumerate(QUADRANTS, start=1):
        # Depthwise: PyTorch's kernels have one input channel each, however many groups there are.
        for layer in (1, 2):
            keys = f"local.conv{number}_{layer}", f"local.bn{number}_{layer}"
            yield from _conv_norm(*keys, ("local", f"{quadrant}{layer}"), (width, 1, 3, 3))


def _modulator(width: int) -> Iterator[Entry]:
    channel, place = "modulator.channel_att.gate_c.gate_c", "modulator.spatial_att.gate_s.gate_s"
    ours = "modulator"
    yield from linear_entries(f"{channel}_fc_0", (ours, "channel_reduce"), width, ATTENTION_WIDTH)
    yield from norm_entries(f"{channel}_bn_1", (ours, "channel_norm"), ATTENTION_WIDTH)
    yield from linear_entries(f"{channel}_fc_final", (ours, "channel_final"), ATTENTION_WIDTH, width)
    yield from _biased_conv_norm(
        f"{place}_conv_reduce0", f"{place}_bn_reduce0", (ours, "place_reduce"), (ATTENTION_WIDTH, width, 1, 1)
    )
    for number in range(2):
        keys = f"{place}_conv_di_{number}", f"{place}_bn_di_{number}"
        shape = (ATTENTION_WIDTH, ATTENTION_WIDTH, 3, 3)
        yield from _biased_conv_norm(*keys, (ours, f"place_dilated{number}"), shape)
    yield conv_entry(f"{place}_conv_final", (ours, "place_final"), (1, ATTENTION_WIDTH, 1, 1))
    yield Entry(f"{place}_conv_final.bias", ("params", ours, "place_final", "bias"), (1,))


def _syncnet(module: SyncNet) -> Iterator[Entry]:
    positions = (0, 4, 8, 11, 14, 18)
    towers = (
        ("aud", "audio", module.audio_widths, ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (5, 4)), 1),
        ("lip", "lip", module.lip_widths, ((7, 7), (5, 5), (3, 3), (3, 3), (3, 3), (6, 6)), 3),
    )
    for key, ours, widths, kernels, channels in towers:
        inputs = channels
        for number, (position, width, kernel) in enumerate(zip(positions, widths, kernels, strict=True)):
            tower, path = f"netcnn{key}", (f"{ours}_tower", f"conv{number}")
            shape = (width, inputs, *kernel)
            if ours == "lip":
                yield _over_frames(f"{tower}.{position}", path, shape, FRAMES if number == 0 else 1)
            else:
                yield conv_entry(f"{tower}.{position}", (*path, "conv"), shape)
            yield Entry(f"{tower}.{position}.bias", ("params", *path, "conv", "bias"), (width,))
            yield from norm_entries(f"{tower}.{position + 1}", (*path, "norm"), width)
            inputs = width
        yield from linear_entries(f"netfc{key}.0", (f"{ours}_head", "hidden"), inputs, module.hidden)
        yield from norm_entries(f"netfc{key}.1", (f"{ours}_head", "norm"), module.hidden)
        yield from linear_entries(f"netfc{key}.3", (f"{ours}_head", "output"), module.hidden, module.embedding)


def _over_frames(key: str, path: Path, shape: tuple[int, int, int, int], frames: int) -> Entry:
    """Returns a convolution of three dimensions that covers all frames there are, as one over their channels."""
    outputs, inputs, height, width = shape
    return Entry(
        f"{key}.weight",
        ("params", *path, "conv", "kernel"),
        (outputs, inputs, frames, height, width),
        (3, 4, 2, 1, 0),
        merged=(height, width, frames * inputs, outputs),
    )


def _flattened(key: str, path: Path, channels: int, side: int, outputs: int) -> Iterator[Entry]:
    """Yields the linear layer that follows a flattened map."""
    weight, bias = linear_entries(key, path, channels * side * side, outputs)
    split, merged = (outputs, channels, side, side), (side * side * channels, outputs)
    yield dataclasses.replace(weight, axes=(2, 3, 1, 0), split=split, merged=merged)
    yield bias


def _conv_norm(key: str, norm: str, path: Path, shape: tuple[int, int, int, int]) -> Iterator[Entry]:
    yield conv_entry(key, (*path, "conv"), shape)
    yield from norm_entries(norm, (*path, "norm"), shape[0])


def _biased_conv_norm(key: str, norm: str, path: Path, shape: tuple[int, int, int, int]) -> Iterator[Entry]:
    yield Entry(f"{key}.bias", ("params", *path, "conv", "bias"), shape[:1])
    yield from _conv_norm(key, norm, path, shape)


def _slope(key: str, path: Path) -> Entry:
    return Entry(f"{key}.weight", ("params", *path, "slope"), (1,))
