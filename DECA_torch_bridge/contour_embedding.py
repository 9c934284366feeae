"""Landmarks 0..16 of the built-in head as points on its mesh: the outline of the face, for every degree of yaw."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from data_prep.synthetic.head import JOINTS, HeadModel
from data_prep.synthetic.landmark_embedding import contour_landmarks

__all__ = ["YAWS", "contour_embedding"]

YAWS = (*range(40), *range(-1, -40, -1))
"""Degrees of yaw of the rows of FLAME's dynamic landmark embedding; positive turns the face toward +x."""


def contour_embedding(head: HeadModel) -> tuple[Int[np.ndarray, "79 17"], Float[np.ndarray, "79 17 3"]]:
    """Returns triangles and barycentric coordinates of the outline's landmarks, one row per entry of `YAWS`.

    A landmark lies where a ray from between the eyes crosses the last side of a triangle of the face proper, in the
    picture of the mean head turned by the yaw.
    """
    sides, triangles = _sides(head.f[head.face_faces])
    joints = head.J_regressor @ head.v_template
    eyes = joints[[JOINTS.index("right_eye"), JOINTS.index("left_eye")]]
    faces, weights = [], []
    for yaw in YAWS:
        across = np.array([np.cos(np.radians(yaw)), 0, np.sin(np.radians(yaw))])
        places, right, left = (
            np.stack([points @ across, -points[..., 1]], -1).astype(np.float32)
            for points in (head.v_template, eyes[0], eyes[1])
        )
        centre = 0.5 * (right + left)
        rays = contour_landmarks(places, sides, right, left) - centre
        side, share = _last_crossing(places - centre, sides, rays)
        triangle = head.face_faces[triangles[side]]
        faces.append(triangle)
        corners = head.f[triangle]
        start, end = sides[side].T[:, :, None]
        weights.append((corners == start) * (1 - share)[:, None] + (corners == end) * share[:, None])
    return np.array(faces, np.int32), np.array(weights, np.float32)


def _sides(faces: Int[np.ndarray, "g 3"]) -> tuple[Int[np.ndarray, "e 2"], Int[np.ndarray, " e"]]:
    """Returns every side of the triangles once, and a triangle it belongs to."""
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, first = np.unique(sides, axis=0, return_index=True)
    return unique, first % len(faces)


def _last_crossing(
    places: Float[np.ndarray, "n 2"], sides: Int[np.ndarray, "e 2"], rays: Float[np.ndarray, "17 2"]
) -> tuple[Int[np.ndarray, "17"], Float[np.ndarray, "17"]]:
    """Returns for each ray from the origin the side it crosses last, and where on it, 0 at its start to 1."""
    start, end = np.moveaxis(places[sides], 1, 0)
    found, share = np.zeros(len(rays), int), np.zeros(len(rays))
    for ray, (x, y) in enumerate(rays):
        before, after = x * start[:, 1] - y * start[:, 0], x * end[:, 1] - y * end[:, 0]
        crossing = np.flatnonzero((before * after <= 0) & (before != after))
        part = before[crossing] / (before[crossing] - after[crossing])
        reach = (start[crossing] + part[:, None] * (end - start)[crossing]) @ np.array([x, y])
        last = reach.argmax()
        found[ray], share[ray] = crossing[last], part[last]
    return found, share
