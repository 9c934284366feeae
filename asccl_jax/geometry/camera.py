"""DECA's weak-perspective camera: from metres to the plane of the crop it looks at.

Image space: x right, y down, both -1..1 across the crop; z away from the camera, smaller is nearer. Pixel positions
count from the middle of the first pixel, so that the crop's left border is at -0.5.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from asccl_jax.geometry.drawing_rules import CROP_SIZE

__all__ = ["crop_pixels", "landmarks_in_image_space", "project", "to_image_space"]


def project(points: Float[Array, "b n 3"], camera: Float[Array, "b 3"]) -> Float[Array, "b n 3"]:
    """Returns points moved by (tx, ty) and scaled, y still up.

    Args:
      points: Metres, y up, z towards the camera.
      camera: Scale, tx, ty: the published `cam`.
    """
    shift = jnp.concatenate([camera[:, 1:], jnp.zeros_like(camera[:, :1])], axis=1)
    return camera[:, None, :1] * (points + shift[:, None])


def to_image_space(points: Float[Array, "b n 3"], camera: Float[Array, "b 3"]) -> Float[Array, "b n 3"]:
    """Returns points in image space (the published `trans_verts`)."""
    projected = project(points, camera)
    return jnp.concatenate([projected[..., :1], -projected[..., 1:]], axis=-1)


def landmarks_in_image_space(points: Float[Array, "b l 3"], camera: Float[Array, "b 3"]) -> Float[Array, "b l 2"]:
    """Returns x and y of landmarks in image space."""
    return to_image_space(points, camera)[..., :2]


def crop_pixels(points: Float[Array, "*b c"], *, crop_size: int = CROP_SIZE) -> Float[Array, "*b 2"]:
    """Returns pixel positions, in a crop of this side, of points in image space."""
    return (points[..., :2] + 1) * (crop_size / 2) - 0.5
