"""Rules by which heads are drawn, the same on every device: pixels, triangles, lamps, and what is left out.

Picture coordinates: x right, y down, both -1..1 from border to border; pixel (row r, column c) of an h x w picture is
sampled at x = -1 + (2c + 1)/w, y = -1 + (2r + 1)/h. Smaller z is nearer.

A rasteriser (the rules are those of PyTorch3D without blur or culling, which the published renders were made by):

* Barycentric coordinates are edge functions / (signed area + 1e-8). A pixel lies in a triangle where all three are
  strictly positive; either winding is drawn. Depth is linear in them. The least depth wins, then the lower triangle.
* Triangles with |area| <= 1e-8 or with a corner at z < 1e-8 are skipped, and so is a negative depth.

All in float32. On a CPU every implementation keeps one order of operations and gives the same pixels to the last bit.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

__all__ = [
    "BOX_MARGIN_PX",
    "CROP_SIZE",
    "DEPTH_OFFSET",
    "LAMPS",
    "LAMP_BRIGHTNESS",
    "LEAST_AREA",
    "LEAST_NORMAL",
    "NEAREST",
    "NORMAL_LIMIT",
    "SHAPE_GREY",
    "pixel_centres",
]

CROP_SIZE = 224
"""Side in pixels of the crop that DECA's camera looks at."""

LEAST_AREA = 1e-8
NEAREST = 1e-8
BOX_MARGIN_PX = 1e-2
"""How far outside a triangle's box pixels are tested as well: rounding can move an edge by a millionth of a picture."""

# Upstream: added again, in place, before each of three draws (renderer.py); only the test for a near plane sees it.
DEPTH_OFFSET = 10.0
"""Added to z of image space, so that the head lies behind the near plane."""

LEAST_NORMAL = 1e-6
"""What a vertex's sum of face normals, in square metres, is divided by at least."""

LAMPS = tuple(
    tuple(component / sum(c * c for c in direction) ** 0.5 for component in direction)
    for direction in ((-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1), (0, 0, 1))
)
"""Directions towards the five lamps of shape images, in the head's axes."""

LAMP_BRIGHTNESS = 1.7
SHAPE_GREY = 180 / 255
NORMAL_LIMIT = 0.15
"""Surfaces are drawn while their normal's z in image space is below this (0: edge-on, negative: to the camera)."""


def pixel_centres(count: int) -> Float32[np.ndarray, " n"]:
    """Returns the centres of the pixels along one axis; on the host, since devices divide differently."""
    index = np.arange(count, dtype=np.float32)
    return np.float32(-1) + (2 * index + 1) / np.float32(count)
