"""Texture space: the head's surface laid out flat, rasterised once and kept."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from DECA_torch_bridge.raster import Fragments, Rasteriser, TorchRasteriser, interpolate

__all__ = ["TEXTURE_SIZE", "TextureSpace"]

TEXTURE_SIZE = 256


class TextureSpace(nn.Module):
    """Which triangle covers each texel; the same for every head, whatever its pose.

    Attributes:
      positions: Texture coordinates as -1..1, rows downward.
      faces: Triangles of `positions`, in the order of the mesh's.

    Args:
      uv: Texture coordinates, 0..1, v upward.
      uv_faces: Triangles of texture space.
      size: Side of the square of texels.
      rasteriser: Used once, here.
    """

    positions: Tensor
    faces: Tensor

    def __init__(
        self,
        uv: Float[np.ndarray, "m 2"],
        uv_faces: Int[np.ndarray, "f 3"],
        *,
        size: int = TEXTURE_SIZE,
        rasteriser: Rasteriser | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        u, v = np.array(uv, np.float32).T
        positions = torch.from_numpy(np.stack([u * 2 - 1, -(v * 2 - 1)], axis=1))
        faces = torch.from_numpy(np.array(uv_faces, np.int64))
        flat = torch.cat([positions, torch.ones(len(positions), 1)], dim=1)[None]
        fragments = (rasteriser or TorchRasteriser())(flat, faces, size)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("faces", faces, persistent=False)
        for name, value in fragments._asdict().items():
            self.register_buffer(f"_{name}", value, persistent=False)

    @property
    def fragments(self) -> Fragments:
        """What each texel sees."""
        return Fragments(*(self.get_buffer(f"_{name}") for name in Fragments._fields))

    def spread(self, attributes: Float[Tensor, "b n k"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b s s k"]:
        """Returns vertex attributes laid out in texture space (the published `world2uv`), 0 where no triangle is."""
        batch = len(attributes)
        fragments = Fragments(*(value.expand(batch, *value.shape[1:]) for value in self.fragments))
        return interpolate(fragments, faces, attributes)
