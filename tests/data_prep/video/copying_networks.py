"""`asccl` with networks whose results are foretold: the expression stays, a face is as bright as its mouth is open.

Run as `python -m tests.data_prep.video.copying_networks COMMAND ...`; all but the networks is the command's own.
"""

import sys
from typing import Any

import jax.numpy as jnp
from flax import struct

from asccl_jax import cli, weights
from asccl_jax.models.manipulator import Manipulator

_MOUTH = slice(0.70, 0.86), slice(0.38, 0.62)
"""Rows and columns of the mouth in an aligned picture, as shares of its side."""


@struct.dataclass
class CopyingManipulator(Manipulator):
    """Gives every window back; styles are the real network's."""

    def generate(self, x, style):
        return x

    def prepare(self, frames, style):
        return frames

    def finish(self, prepared):
        return prepared


@struct.dataclass
class BrightRenderer:
    """Paints a face in one grey: the darker the drawn mouth of its own frame, whose inside is black, the brighter."""

    params: Any
    settings: Any = struct.field(pytree_node=False)

    def encode(self, blocks):
        side = blocks.shape[1]
        rows, columns = (slice(round(part.start * side), round(part.stop * side)) for part in _MOUTH)
        shown = blocks[:, rows, columns, -9:-6].mean(axis=(1, 2, 3))  # of the window's last frame, NMFC
        return jnp.broadcast_to(1 - shown[:, None, None, None], (*blocks.shape[:3], 3))

    def decode(self, encoded, previous, mask):
        return (2 * encoded - 1) * mask - (1 - mask)


def main(words):
    manipulator, renderer = weights.load_manipulator, weights.load_renderer

    def load_manipulator(path):
        real = manipulator(path)
        return CopyingManipulator(real.variables, real.settings)

    def load_renderer(path):
        real = renderer(path)
        return BrightRenderer({"generator": real.params["generator"]}, real.settings)

    weights.load_manipulator, weights.load_renderer = load_manipulator, load_renderer
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
