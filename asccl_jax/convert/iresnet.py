"""The tensors of an IResNet's trunk under both their names, and its number of blocks as the keys tell it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from asccl_jax.convert.entries import NORM_ENTRIES, Entry, conv_entry, norm_entries

__all__ = ["blocks_of_keys", "final_norm_shapes", "trunk_entries"]

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
