"""DECA's weak-perspective camera: from metres to the crop's plane, and from there to pixels of any picture.

Image space: x right, y down, both -1..1 across the 224-pixel crop; z away from the camera, smaller is nearer.
Pixel positions of pictures count from the middle of the first pixel, so that the crop's left border is at -0.5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from asccl_jax.head.drawing_rules import CROP_SIZE

__all__ = [
    "crop_pixels",
    "landmarks_in_image_space",
    "place_in_picture",
    "project",
    "to_image_space",
]


def project(points: Float[Tensor, "b n 3"], camera: Float[Tensor, "b 3"]) -> Float[Tensor, "b n 3"]:
    """Returns points moved by (tx, ty) and scaled, y still up.

    Args:
      points: Metres, y up, z towards the camera.
      camera: Scale, tx, ty: the published `cam`.
    """
    shifted = torch.cat([points[..., :2] + camera[:, None, 1:], points[..., 2:]], dim=-1)
    return camera[:, None, :1] * shifted


def to_image_space(points: Float[Tensor, "b n 3"], camera: Float[Tensor, "b 3"]) -> Float[Tensor, "b n 3"]:
    """Returns points in image space (the published `trans_verts`)."""
    projected = project(points, camera)
    return torch.cat([projected[..., :1], -projected[..., 1:]], dim=-1)


def landmarks_in_image_space(points: Float[Tensor, "b l 3"], camera: Float[Tensor, "b 3"]) -> Float[Tensor, "b l 2"]:
    """Returns x and y of landmarks in image space."""
    return to_image_space(points, camera)[..., :2]


def crop_pixels(points: Float[Tensor, "... c"], crop_size: int = CROP_SIZE) -> Float[Tensor, "... 2"]:
    """Returns pixel positions in the crop of points in image space."""
    return (points[..., :2] + 1) * (crop_size / 2) - 0.5


def place_in_picture(
    points: Float[Tensor, "b n 3"],
    placement: Float[Tensor, "b 2 3"],
    size: tuple[int, int],
    *,
    crop_size: int = CROP_SIZE,
) -> Float[Tensor, "b n 3"]:
    """Returns points with x and y -1..1 across a picture instead of the crop; z is scaled along.

    Drawing there is what warping the crop's drawing aims at, without its blur.

    Args:
      points: Image space of the crop.
      placement: Maps pixel positions of the crop to pixel positions of the picture (a similarity).
      size: Height and width of the picture.
      crop_size: Side of the crop in pixels.
    """
    pixels = crop_pixels(points, crop_size)
    placed = pixels @ placement[:, :, :2].transpose(1, 2) + placement[:, None, :, 2]
    height, width = size
    half = placed.new_tensor([width / 2, height / 2])
    depth = points[..., 2:] * torch.linalg.vector_norm(placement[:, None, :1, 0:2], dim=-1)
    return torch.cat([(placed + 0.5) / half - 1, depth], dim=-1)
