"""The 68 landmarks: 51 fixed to the skin by barycentric coordinates, 17 on the outline of the posed face."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from data_prep.compiled import compiled
from data_prep.synthetic.skin_surface import (
    BROW_INNER_X,
    BROW_OUTER_X,
    EYE_HALF_WIDTH,
    EYE_X,
    EYE_Y,
    MOUTH_HALF_WIDTH,
    MOUTH_Y,
    SkinSheet,
    brow_height,
    lower_lip_outline,
    upper_lip_outline,
)

__all__ = ["CONTOUR_COUNT", "contour_landmarks", "static_landmarks"]

CONTOUR_COUNT = 17

_EAR_ANGLE = 0.06
"""Contour landmarks 0 and 16 look this far above the horizontal through the eyes, radians."""


def static_landmarks(skin: SkinSheet) -> tuple[Int[np.ndarray, "51"], Float[np.ndarray, "51 3"]]:
    """Returns triangle and barycentric coordinates of landmarks 17..67: brows, nose, eyes, lips."""
    right_brow = [(-x, float(brow_height(np.array(x)))) for x in np.linspace(BROW_OUTER_X, BROW_INNER_X, 5)]
    ridge = [(0.0, y) for y in (0.0235, 0.0120, 0.0005, -0.0110)]
    base = [(x, y) for x, y in ((-0.0130, -0.0200), (-0.0065, -0.0222), (0, -0.0232))]
    outline = [(-0.0170, True), (-0.0058, True), (0.0, True), (0.0, False), (-0.0085, False), (-0.0170, False)]
    lips = [(x, float((upper_lip_outline if up else lower_lip_outline)(np.array(x))), not up) for x, up in outline]
    gap = 0.0100
    free: list[tuple[float, float, bool]] = [(x, y, False) for x, y in right_brow + _mirror(right_brow)[::-1]]
    free += [(x, y, False) for x, y in ridge + base + _mirror(base)[1::-1]]
    for side in (-1, 1):
        free += _eye(skin, side)
    corner, inner = MOUTH_HALF_WIDTH, MOUTH_HALF_WIDTH - 0.0030
    upper = [(-x, y, low) for x, y, low in lips[1::-1]]
    lower = [(-x, y, low) for x, y, low in lips[:3:-1]]
    free += [(-corner, MOUTH_Y, False), *lips[:3], *upper, (corner, MOUTH_Y, False), *lower, lips[3], *lips[4:]]
    free += [(x, MOUTH_Y, False) for x in (-inner, -gap, 0.0, gap, inner)] + [
        (x, MOUTH_Y, True) for x in (gap, 0, -gap)
    ]
    triangles = _Triangles(skin)
    found = [triangles.locate(x, y, lower=low) for x, y, low in free]
    return np.array([face for face, _ in found], np.int32), np.array([weights for _, weights in found], np.float32)


def _mirror(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(-x, y) for x, y in points]


def _eye(skin: SkinSheet, side: int) -> list[tuple[float, float, bool]]:
    """Six points around an eye, in the order of the 68: from the corner on the picture's left over the upper lid."""
    upper, lower = (skin.vertices[edge] for edge in skin.lid_edges[0 if side < 0 else 1])
    left, right, third = side * EYE_X - EYE_HALF_WIDTH, side * EYE_X + EYE_HALF_WIDTH, EYE_HALF_WIDTH * 0.36
    points = [(left, False), (side * EYE_X - third, False), (side * EYE_X + third, False), (right, False)]
    points += [(side * EYE_X + third, True), (side * EYE_X - third, True)]
    edges = {False: upper, True: lower}
    return [(x, float(np.interp(x, edges[low][:, 0], edges[low][:, 1])), low) for x, low in points]


class _Triangles:
    """Front triangles of the skin, searched by x and y."""

    def __init__(self, skin: SkinSheet) -> None:
        corners = skin.vertices[skin.faces]
        self._front: Int[np.ndarray, " g"] = np.flatnonzero(corners[:, :, 2].min(axis=1) > 0.02).astype(np.int32)
        self._corners = corners[self._front]
        self._below_mouth: Bool[np.ndarray, " g"] = skin.below_mouth[skin.faces[self._front]].any(axis=1)
        self._below_eyes: Bool[np.ndarray, " g"] = skin.below_eyes[skin.faces[self._front]].any(axis=1)

    def locate(self, x: float, y: float, *, lower: bool) -> tuple[int, Float[np.ndarray, "3"]]:
        """Returns the triangle that holds (x, y), or the nearest one, on the asked side of a slit."""
        a, b, c = np.moveaxis(self._corners[:, :, :2], 1, 0)
        area = _cross(b - a, c - a)
        area = np.where(np.abs(area) < 1e-14, 1e-14, area)
        point = np.array([x, y])
        weights = np.stack(
            [_cross(b - point, c - point), _cross(c - point, a - point), _cross(a - point, b - point)], -1
        )
        weights = np.clip(weights / area[:, None], 0, 1)
        weights /= weights.sum(axis=1, keepdims=True)
        miss = np.linalg.norm((weights[:, :, None] * self._corners[:, :, :2]).sum(axis=1) - point, axis=1)
        near_slit = abs(y - MOUTH_Y) < 0.03 or abs(y - EYE_Y) < 0.008
        below = self._below_mouth if y < 0 else self._below_eyes
        best = int(np.argmin(np.where(near_slit & (below != lower), np.inf, miss)))
        return int(self._front[best]), weights[best]


def _cross(a: Float[np.ndarray, "*g 2"], b: Float[np.ndarray, "*g 2"]) -> Float[np.ndarray, "*g"]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def contour_landmarks(
    points: Float[np.ndarray, "n 2"],
    edges: Int[np.ndarray, "e 2"],
    right_eye: Float[np.ndarray, "2"],
    left_eye: Float[np.ndarray, "2"],
) -> Float[np.ndarray, "17 2"]:
    """Returns landmarks 0..16: where rays from between the eyes leave the projected face.

    Rays turn evenly from one ear over the chin to the other, in a frame that rolls with the eyes. Their ends lie on the
    outline of the face as it is posed, not on fixed vertices.

    Args:
      points: Projected vertices, y down.
      edges: Sides of the face's triangles.
      right_eye: Projected centre of the person's right eye, on the picture's left.
      left_eye: Likewise on the picture's right.
    """
    centre = 0.5 * (right_eye + left_eye)
    across = (left_eye - right_eye) / np.linalg.norm(left_eye - right_eye)
    down = np.array([-across[1], across[0]])
    angle = np.linspace(-_EAR_ANGLE, np.pi + _EAR_ANGLE, CONTOUR_COUNT)
    directions = -np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * down
    reach = _farthest_crossing(points - centre.astype(points.dtype), edges, directions.astype(points.dtype))
    return centre + reach[:, None] * directions


@compiled(fastmath=True)
def _farthest_crossing(points, edges, directions):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Distance from the origin along each direction to the last edge crossed."""
    reach = np.zeros(len(directions), points.dtype)
    for k in range(len(directions)):
        dx, dy = directions[k, 0], directions[k, 1]
        for e in range(len(edges)):
            i, j = edges[e, 0], edges[e, 1]
            side_i = dx * points[i, 1] - dy * points[i, 0]
            side_j = dx * points[j, 1] - dy * points[j, 0]
            if side_i * side_j > 0 or side_i == side_j:
                continue
            t = side_i / (side_i - side_j)
            x = points[i, 0] + t * (points[j, 0] - points[i, 0])
            y = points[i, 1] + t * (points[j, 1] - points[i, 1])
            reach[k] = max(reach[k], x * dx + y * dy)
    return reach
