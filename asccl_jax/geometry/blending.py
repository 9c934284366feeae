"""A face laid into the picture it was cut from: by pyramids, so that no seam shows, or just copied."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Real

from asccl_jax.geometry.pyramid import gaussian_pyramid, laplacian_pyramid, rebuilt
from asccl_jax.geometry.resize import resize_lanczos, resize_nearest
from asccl_jax.geometry.soft_erosion import soft_erosion

__all__ = ["blend_pyramids", "copy_paste", "inner_mask"]

_RIM = 33 / 256
"""Side of the surroundings that decide on a pixel of the mask, as a share of the picture's height."""

_INNER = 0.8
"""Share of mask in them from which it stays."""


def blend_pyramids(
    background: Float32[np.ndarray, "h w c"],
    face: Float32[np.ndarray, "fh fw c"],
    mask: Real[np.ndarray, "mh mw"],
    *,
    levels: int = 4,
    copied_levels: int = 0,
) -> Float32[np.ndarray, "h w c"]:
    """Returns a picture with a face in it: details join within pixels, light and colour over many.

    Each level of the Laplacian pyramids is mixed by the mask, which is drawn back from its edge and smoothed to that
    level (Burt and Adelson 1983). The result may leave the range of its inputs a little.

    Args:
      background: The picture.
      face: Brought to its size by Lanczos-4 if it has another.
      mask: 1 where the face is, 0 elsewhere; brought to its size by the nearest pixel.
      levels: Of the pyramids, besides the picture itself.
      copied_levels: So many of the coarsest are the background's: its light and colours stay.
    """
    face, mask = _fitted(background, face, mask)
    backgrounds, faces = laplacian_pyramid(background, levels), laplacian_pyramid(face, levels)
    masks = gaussian_pyramid(inner_mask(mask)[..., None], levels)[::-1]
    mixed = [
        _mixed(under, over, share) if level >= copied_levels else under
        for level, (under, over, share) in enumerate(zip(backgrounds, faces, masks, strict=True))
    ]
    return rebuilt(mixed)


def copy_paste(
    background: Float32[np.ndarray, "h w c"],
    face: Float32[np.ndarray, "fh fw c"],
    mask: Real[np.ndarray, "mh mw"],
) -> Float32[np.ndarray, "h w c"]:
    """Returns a picture with a face in it where the mask is 1; sizes are brought together as for `blend_pyramids`."""
    face, mask = _fitted(background, face, mask)
    return _mixed(background, face, mask[..., None])


def inner_mask(mask: Real[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Returns the part of a mask that is blended in, 0 or 1: away from its edge by a few hundredths of the height."""
    size = int(_RIM * mask.shape[0])
    return soft_erosion(mask, size=size + 1 - size % 2, threshold=_INNER).hard.astype(np.float32)


def _fitted(
    background: Float32[np.ndarray, "h w c"], face: Float32[np.ndarray, "fh fw c"], mask: Real[np.ndarray, "mh mw"]
) -> tuple[Float32[np.ndarray, "h w c"], Float32[np.ndarray, "h w"]]:
    """Face and mask at the background's size."""
    height, width = background.shape[:2]
    return resize_lanczos(face, (height, width)), resize_nearest(mask, (height, width)).astype(np.float32)


def _mixed(
    background: Float32[np.ndarray, "h w c"], face: Float32[np.ndarray, "h w c"], share: Float32[np.ndarray, "h w 1"]
) -> Float32[np.ndarray, "h w c"]:
    return face * share + background * (1 - share)
