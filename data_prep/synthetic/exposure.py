"""How much light reaches each point of a person at rest: baked once, since light and person hardly move.

The mesh is drawn from many directions into a depth buffer; what a direction's buffer does not hide is lit from there.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from data_prep.synthetic import raster

__all__ = ["bake_exposure"]

_SKY_DIRECTIONS = 80
_SUN_DIRECTIONS = 14
_SUN_SPREAD = 0.22
"""Half the width of the main light as seen from the head, radians: it is a large soft lamp."""

_RESOLUTION = 160
_BIAS = 0.0030
_EXTENT = 0.36
_SMOOTHING = 2


def bake_exposure(
    vertices: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    sun: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "n 2"]:
    """Returns the shares of the sky's light and of the main light that reach each vertex, 0..1.

    Args:
      vertices: The person at rest.
      normals: Their unit normals.
      faces: What casts shadows.
      sun: Unit vector toward the main light.
    """
    sky, sky_total = np.zeros(len(vertices)), np.full(len(vertices), 1e-6)
    for direction in _sphere(_SKY_DIRECTIONS):
        weight = np.clip(normals @ direction, 0, None) * (0.65 + 0.35 * direction[1])
        sky_total += weight
        sky += weight * _seen(vertices, faces, direction)
    main = np.zeros(len(vertices))
    for direction in _cone(sun, _SUN_DIRECTIONS, _SUN_SPREAD):
        main += _seen(vertices, faces, direction) / _SUN_DIRECTIONS
    exposure = np.stack([sky / sky_total, main], -1)
    for _ in range(_SMOOTHING):
        exposure = _smooth(exposure, faces)
    return exposure.astype(np.float32)


def _sphere(count: int) -> Float[np.ndarray, "k 3"]:
    """Directions spread evenly over the sphere."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    turn = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], -1)


def _cone(axis: Float[np.ndarray, "3"], count: int, half_angle: float) -> Float[np.ndarray, "k 3"]:
    right, up = _frame(axis)
    index = np.arange(count)
    radius = half_angle * np.sqrt((index + 0.5) / count)
    turn = np.pi * (1 + 5**0.5) * index
    directions = axis + radius[:, None] * (np.cos(turn)[:, None] * right + np.sin(turn)[:, None] * up)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _frame(direction: Float[np.ndarray, "3"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Picture axes, right and up, of a camera that looks against `direction`."""
    helper = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.9 else np.array([0.0, 0.0, -1.0])
    right = np.cross(helper, direction)
    right /= np.linalg.norm(right)
    return right, np.cross(direction, right)


def _seen(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], direction: Float[np.ndarray, "3"]
) -> Float[np.ndarray, " n"]:
    """1 where nothing lies between a vertex and a far point in `direction`, else 0."""
    right, up = _frame(direction)
    scale = _RESOLUTION / _EXTENT
    points = np.empty((len(vertices), 3), np.float32)
    points[:, 0] = _RESOLUTION / 2 + vertices @ right * scale
    points[:, 1] = _RESOLUTION / 2 - vertices @ up * scale
    points[:, 2] = vertices @ direction
    depth = np.empty((_RESOLUTION, _RESOLUTION), np.float32)
    face_id = np.empty((_RESOLUTION, _RESOLUTION), np.int32)
    raster.rasterise(points, faces, depth, face_id)
    column = np.clip(points[:, 0].astype(int), 0, _RESOLUTION - 1)
    row = np.clip(points[:, 1].astype(int), 0, _RESOLUTION - 1)
    return (points[:, 2] >= depth[row, column] - _BIAS).astype(np.float64)


def _smooth(values: Float[np.ndarray, "n k"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "n k"]:
    """Mean of each vertex with the vertices it shares a triangle with."""
    total, count = values.copy(), np.ones((len(values), 1))
    for corner in range(3):
        for other in (1, 2):
            index, neighbour = faces[:, corner], faces[:, (corner + other) % 3]
            for channel in range(values.shape[1]):
                total[:, channel] += np.bincount(index, values[neighbour, channel], len(values))
            count[:, 0] += np.bincount(index, minlength=len(values))
    return total / count
