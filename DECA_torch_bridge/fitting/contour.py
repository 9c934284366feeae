"""The jaw's contour: landmarks 0..16 lie where the outline of the posed face is farthest along its normal.

A point on an outline can slide along it unseen, so only its distance along the normal counts. The vertex that is
farthest along the normal, the support point, is found anew whenever the face has moved.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline

from DECA_torch_bridge.head_assets import HeadAssets

__all__ = ["CONTOUR", "contour_candidates", "contour_normals", "support_points"]

CONTOUR = 17
"""Landmarks on the outline: the first of the 68."""

_EYE_JOINTS = (3, 4)
_INNERMOST = 0.82  # of the outline's distance from the face's middle: farther in, no vertex is ever on the outline
_OUTERMOST = 1.01
_BEHIND_EARS_M = 0.012
_SPACING_M = 0.005


def contour_candidates(assets: HeadAssets) -> Int[np.ndarray, " c"]:
    """Returns vertices that may be on the outline of a turned face: a band along the jaw, from ear to ear.

    The band lies within the outline of the frontal mean face, as the embedding of landmarks 0..16 draws it, so that no
    vertex of the neck gets in.
    """
    vertices = assets.v_template.astype(np.float64)
    corners = vertices[assets.faces[assets.full_landmark_faces]]
    landmarks = (assets.full_landmark_weights[:, :, None] * corners).sum(1)
    centre = landmarks[27:48, :2].mean(0)
    jaw = landmarks[:CONTOUR]
    turn = _angle(jaw[:, :2] - centre)
    order = np.argsort(turn)
    reach = CubicSpline(turn[order], np.linalg.norm(jaw[order, :2] - centre, axis=1))
    angle, distance = _angle(vertices[:, :2] - centre), np.linalg.norm(vertices[:, :2] - centre, axis=1)
    limit = reach(np.clip(angle, turn.min(), turn.max()))
    near = (angle > turn.min() - 0.1) & (angle < turn.max() + 0.1)
    near &= (distance > _INNERMOST * limit) & (distance < _OUTERMOST * limit)
    near &= vertices[:, 2] > jaw[:, 2].min() - _BEHIND_EARS_M
    near &= assets.skinning_weights[:, _EYE_JOINTS].max(1) < 0.5
    near[np.unique(assets.faces[assets.mouth_faces])] = False
    return _thinned(vertices, np.flatnonzero(near))


def _angle(offsets: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Angle from straight down, rising toward +x: continuous over the lower face."""
    return np.arctan2(offsets[:, 0], -offsets[:, 1])


def _thinned(vertices: Float[np.ndarray, "n 3"], candidates: Int[np.ndarray, " c"]) -> Int[np.ndarray, " k"]:
    """Keeps one candidate per cell of a grid."""
    cells = np.round(vertices[candidates] / _SPACING_M).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return candidates[np.sort(first)]


def contour_normals(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 17 2"]:
    """Returns outward unit normals of the measured outline, y down."""
    along = np.gradient(landmarks[:, :CONTOUR], axis=1)
    normals = np.stack([-along[..., 1], along[..., 0]], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
    centre = landmarks[:, 27:48].mean(1, keepdims=True)
    outward = ((landmarks[:, :CONTOUR] - centre) * normals).sum(-1, keepdims=True)
    return normals * np.where(outward < 0, -1.0, 1.0)


def support_points(
    candidates: Float[np.ndarray, "t c 2"], normals: Float[np.ndarray, "t 17 2"]
) -> Int[np.ndarray, "t 17"]:
    """Returns the position of the candidate that is farthest along each normal."""
    return np.argmax(normals @ candidates.transpose(0, 2, 1), axis=-1)
