"""Texture coordinates of the built-in head: every piece of the mesh on its own rectangle, none over another."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_prep.synthetic.head import HeadModel
from data_prep.synthetic.skin_surface import ramp

__all__ = ["SKIN_BOX", "displaced_faces", "face_mask", "uv_charts"]

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in texture coordinates."""

_MARGIN = 0.008
_SKIN_FLOOR = 0.20
_TILES_PER_ROW, _TILE_ROWS = 8, 3
_FOREHEAD_M = 0.045

SKIN_BOX: Box = (_MARGIN, _SKIN_FLOOR + _MARGIN, 1 - _MARGIN, 1 - _MARGIN)
"""Where the skin lies; the other pieces lie below it."""


def uv_charts(faces: Int[np.ndarray, "f 3"], paint: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Returns texture coordinates, one per vertex.

    Every piece of the head is a grid of vertices, and its chart is that grid, which spends the texture where the mesh
    is fine: on the face. The slits of mouth and lids are closed in the chart; nothing lies in them. No chart is
    mirrored: triangles turn the same way in the texture as they do seen from outside.

    Args:
      faces: Triangles of the head; its first piece is the skin.
      paint: Paint coordinates, which on the skin are the place on its grid, 0..1, downward.
    """
    piece = _pieces(faces)
    uv = np.zeros((len(piece), 2))
    skin = piece == 0
    uv[skin] = _placed(paint[skin], SKIN_BOX)
    for number in range(1, piece.max() + 1):
        vertices = np.flatnonzero(piece == number)
        # The first cell of a grid of c columns has corners 0, c and c + 1; the other way round if seen from behind.
        cell = faces[np.argmax(piece[faces[:, 0]] == number)] - vertices[0]
        columns = int(cell.max()) - 1
        row, column = np.divmod(vertices - vertices[0], columns)
        across = column / (columns - 1) if cell[0] == 0 else 1 - column / (columns - 1)
        uv[vertices] = _placed(np.stack([across, row / row[-1]], -1), _tile(number - 1))
    return uv.astype(np.float32)


def face_mask(uv: Float[np.ndarray, "n 2"], faces: Int[np.ndarray, "g 3"], *, size: int) -> Float[np.ndarray, "s s"]:
    """Returns 1 inside the given triangles in texture space, falling to 0 toward their edge, in steps of 1 / 255."""
    corners = np.stack([uv[:, 0], 1 - uv[:, 1]], -1)[faces] * size - 0.5
    inside = np.zeros((size, size), np.uint8)
    for corner in corners:
        cv2.fillConvexPoly(inside, np.round(corner * 16).astype(np.int32), 1, shift=4)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    return (np.round(255 * ramp(depth, 1.0, 0.03 * size)) / 255).astype(np.float32)


def displaced_faces(head: HeadModel) -> Int[np.ndarray, " g"]:
    """Returns the triangles that may carry fine displacements: face and forehead, but not beside lids and lips.

    Along the slits two surfaces meet in one place of the texture, where no displacement is right for both.
    """
    centre = head.v_template[head.f].mean(axis=1)
    face = np.zeros(len(head.f), bool)
    face[head.face_faces] = True
    top = centre[face, 1].max()
    forehead = (centre[:, 1] > top - _FOREHEAD_M) & (centre[:, 1] < top + _FOREHEAD_M) & (centre[:, 2] > 0.02)
    skin = _pieces(head.f)[head.f[:, 0]] == 0
    rows, columns = head.grid_shape
    copies = np.arange(len(head.v_template)) >= rows * columns
    shared = np.unique(head.uv[copies & (_pieces(head.f) == 0)], axis=0)
    slit = (head.uv[:, None] == shared).all(axis=-1).any(axis=1)
    return np.flatnonzero(skin & (face | forehead) & ~slit[head.f].any(axis=1))


def _pieces(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, " n"]:
    """Number of the connected piece of each vertex, in the order of their first vertices."""
    count = int(faces.max()) + 1
    joined = coo_matrix((np.ones(2 * len(faces)), (faces[:, [0, 0]].ravel(), faces[:, [1, 2]].ravel())), (count, count))
    return np.asarray(connected_components(joined, directed=False)[1], dtype=np.int32)


def _placed(grid: Float[np.ndarray, "k 2"], box: Box) -> Float[np.ndarray, "k 2"]:
    """Returns places on a grid (0..1, downward) as places in a box of the texture (upward)."""
    left, bottom, right, top = box
    return np.stack([left + (right - left) * grid[:, 0], top - (top - bottom) * grid[:, 1]], -1)


def _tile(number: int) -> Box:
    """Box of a piece in the strip below the skin."""
    if number >= _TILES_PER_ROW * _TILE_ROWS:
        raise ValueError(f"the head has more pieces than the {_TILES_PER_ROW * _TILE_ROWS} places for them")
    row, column = divmod(number, _TILES_PER_ROW)
    width, height = 1 / _TILES_PER_ROW, _SKIN_FLOOR / _TILE_ROWS
    return (
        column * width + _MARGIN,
        row * height + _MARGIN,
        (column + 1) * width - _MARGIN,
        (row + 1) * height - _MARGIN,
    )
