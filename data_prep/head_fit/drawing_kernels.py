"""Compiled kernels that draw a head by `asccl_jax.head.drawing_rules`: pixels, light, colours; one core a picture.

Compiled without fast maths: bit for bit what torch's rasteriser and shader give on a CPU.
"""
# ruff: noqa: ANN001, ANN202 -- numba infers the arrays' types; docstrings name their shapes.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba
import numpy as np

from asccl_jax.head.drawing_rules import (
    BOX_MARGIN_PX,
    LAMP_BRIGHTNESS,
    LAMPS,
    LEAST_AREA,
    NEAREST,
    NORMAL_LIMIT,
    SHAPE_GREY,
)
from data_prep.compiled import compiled

__all__ = ["fill", "paint", "paint_detail", "place"]

_AREA = np.float32(LEAST_AREA)
_NEAR = np.float32(NEAREST)
_MARGIN = BOX_MARGIN_PX
_LAMPS = np.array(LAMPS, np.float32)
_BRIGHTNESS = np.float32(LAMP_BRIGHTNESS)
_GREY = np.float32(SHAPE_GREY)
_LIMIT = np.float32(NORMAL_LIMIT)
_ZERO, _ONE = np.float32(0), np.float32(1)
_HALF = np.float32(0.5)


@compiled(nogil=True)
def place(vertices, matrix, out) -> None:
    """Fills out [n, 3] with picture coordinates of vertices [n, 3]; matrix [3, 4] has a row for each of x, y and z."""
    for n in range(len(vertices)):
        x, y, z = vertices[n, 0], vertices[n, 1], vertices[n, 2]
        for axis in range(3):
            out[n, axis] = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2] * z + matrix[axis, 3]


@compiled(nogil=True)
def fill(points, faces, x, y, face, weights, depth) -> None:
    """Fills face [h, w], weights [h, w, 3] and depth [h, w] from points [n, 3] and faces [f, 3]."""
    height, width = face.shape
    face[:] = -1
    weights[:] = 0
    depth[:] = np.inf
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
        bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
        cx, cy, cz = points[c, 0], points[c, 1], points[c, 2]
        if az < _NEAR or bz < _NEAR or cz < _NEAR:
            continue
        area = (cx - ax) * (by - ay) - (cy - ay) * (bx - ax)
        # Also refuses what is not a number.
        if not abs(area) > _AREA or not np.isfinite(az + bz + cz):
            continue
        first_column, last_column = _box(min(ax, bx, cx), max(ax, bx, cx), width)
        first_row, last_row = _box(min(ay, by, cy), max(ay, by, cy), height)
        positive = area > _ZERO
        area += _AREA
        for row in range(first_row, last_row + 1):
            py = y[row]
            a_part = (py - by) * (cx - bx)
            b_part = (py - cy) * (ax - cx)
            c_part = (py - ay) * (bx - ax)
            for column in range(first_column, last_column + 1):
                px = x[column]
                wa = (px - bx) * (cy - by) - a_part
                wb = (px - cx) * (ay - cy) - b_part
                wc = (px - ax) * (by - ay) - c_part
                if positive:
                    if wa <= _ZERO or wb <= _ZERO or wc <= _ZERO:
                        continue
                elif wa >= _ZERO or wb >= _ZERO or wc >= _ZERO:
                    continue
                wa, wb, wc = wa / area, wb / area, wc / area
                here = wa * az + wb * bz + wc * cz
                if here < depth[row, column] and here >= _ZERO and wa > _ZERO and wb > _ZERO and wc > _ZERO:
                    depth[row, column] = here
                    face[row, column] = f
                    weights[row, column, 0] = wa
                    weights[row, column, 1] = wb
                    weights[row, column, 2] = wc


@numba.njit(inline="always")
def _box(low, high, count):
    """First and last pixel along one axis whose centre may lie in a triangle."""
    first = np.ceil((np.float64(low) + 1) * (count / 2) - 0.5 - _MARGIN)
    last = np.floor((np.float64(high) + 1) * (count / 2) - 0.5 + _MARGIN)
    return int(min(max(first, 0.0), float(count))), int(min(max(last, -1.0), count - 1.0))


@compiled(nogil=True)
def paint(face, weights, faces, normals, facing, colours, nmfc, shape, front) -> None:
    """Fills nmfc [h, w, 3], shape [h, w, 3] and front [h, w] from what the pixels see and values at the vertices."""
    height, width = face.shape
    for row in range(height):
        for column in range(width):
            f = face[row, column]
            visible = False
            if f >= 0:
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                wa, wb, wc = weights[row, column, 0], weights[row, column, 1], weights[row, column, 2]
                visible = wa * facing[a] + wb * facing[b] + wc * facing[c] < _LIMIT
            front[row, column] = visible
            if not visible:
                for channel in range(3):
                    nmfc[row, column, channel] = _ZERO
                    shape[row, column, channel] = _ZERO
                continue
            x = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
            y = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
            z = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
            grey = (wa * _GREY + wb * _GREY + wc * _GREY) * _lamp_light(x, y, z)
            for channel in range(3):
                nmfc[row, column, channel] = (
                    wa * colours[a, channel] + wb * colours[b, channel] + wc * colours[c, channel]
                )
                shape[row, column, channel] = grey


@compiled(nogil=True)
def paint_detail(face, weights, faces, positions, texture, front, image) -> None:
    """Fills image [h, w, 3] by normals of texture [s, s, 3], looked up bilinearly, 0 beyond its borders."""
    height, width = face.shape
    size = len(texture)
    normal = np.empty(3, np.float32)
    for row in range(height):
        for column in range(width):
            if not front[row, column]:
                for channel in range(3):
                    image[row, column, channel] = _ZERO
                continue
            f = face[row, column]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb, wc = weights[row, column, 0], weights[row, column, 1], weights[row, column, 2]
            across = wa * positions[a, 0] + wb * positions[b, 0] + wc * positions[c, 0]
            down = wa * positions[a, 1] + wb * positions[b, 1] + wc * positions[c, 1]
            across = ((across + _ONE) * np.float32(size) - _ONE) * _HALF
            down = ((down + _ONE) * np.float32(size) - _ONE) * _HALF
            left, top = int(np.floor(across)), int(np.floor(down))
            right_share, lower_share = across - np.float32(left), down - np.float32(top)
            normal[:] = _ZERO
            for i in range(2):
                for j in range(2):
                    y, x = top + i, left + j
                    if 0 <= y < size and 0 <= x < size:
                        share = (lower_share if i else _ONE - lower_share) * (right_share if j else _ONE - right_share)
                        for channel in range(3):
                            normal[channel] += share * texture[y, x, channel]
            grey = (wa * _GREY + wb * _GREY + wc * _GREY) * _lamp_light(normal[0], normal[1], normal[2])
            for channel in range(3):
                image[row, column, channel] = grey


@numba.njit(inline="always")
def _lamp_light(x, y, z):
    total = _ZERO
    for lamp in range(len(_LAMPS)):
        light = x * _LAMPS[lamp, 0] + y * _LAMPS[lamp, 1] + z * _LAMPS[lamp, 2]
        total += min(max(light, _ZERO), _ONE) * _BRIGHTNESS
    return total / np.float32(len(_LAMPS))
