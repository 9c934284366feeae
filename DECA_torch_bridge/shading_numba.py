"""The shader of `shading` compiled for the CPU: one pass over the pixels, same NMFC and shape image to the bit."""
# ruff: noqa: ANN001, ANN202 -- numba infers the arrays' types; docstrings name their shapes.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data_prep.compiled import compiled
from DECA_torch_bridge.raster import Fragments
from DECA_torch_bridge.shading import LAMP_BRIGHTNESS, LAMPS, NORMAL_LIMIT, SHAPE_GREY, HeadImages

__all__ = ["NumbaShader"]

_LAMPS = np.array(LAMPS, np.float32)
_BRIGHTNESS = np.float32(LAMP_BRIGHTNESS)
_GREY = np.float32(SHAPE_GREY)
_LIMIT = np.float32(NORMAL_LIMIT)
_ZERO, _ONE = np.float32(0), np.float32(1)
_HALF = np.float32(0.5)


class NumbaShader:
    """One core, float32, no gradients."""

    def paint(
        self,
        fragments: Fragments,
        faces: Int[Tensor, "f 3"],
        normals: Float[Tensor, "b n 3"],
        facing: Float[Tensor, "b n"],
        colours: Float[Tensor, "n 3"],
    ) -> HeadImages:
        """Returns NMFC and shape image; see `shading.Shader`."""
        face, weights = _host(fragments.face), _host(fragments.barycentric)
        triangles, towards, turned, paint = (_host(values) for values in (faces, normals, facing, colours))
        nmfc, shape = np.empty((*face.shape, 3), np.float32), np.empty((*face.shape, 3), np.float32)
        front = np.empty(face.shape, np.bool_)
        for frame in range(len(face)):
            _paint(
                face[frame], weights[frame], triangles, towards[frame], turned[frame], paint,
                nmfc[frame], shape[frame], front[frame],
            )  # fmt: skip
        return HeadImages(torch.from_numpy(nmfc), torch.from_numpy(shape), torch.from_numpy(front))

    def paint_detail(
        self,
        fragments: Fragments,
        texture_faces: Int[Tensor, "f 3"],
        texture_positions: Float[Tensor, "m 2"],
        texture_normals: Float[Tensor, "b s s 3"],
        front: Bool[Tensor, "b h w"],
    ) -> Float[Tensor, "b h w 3"]:
        """Returns the shape image with normals from texture space; see `shading.Shader`."""
        face, weights = _host(fragments.face), _host(fragments.barycentric)
        triangles, positions, texture, drawn = (
            _host(values) for values in (texture_faces, texture_positions, texture_normals, front)
        )
        image = np.empty((*face.shape, 3), np.float32)
        for frame in range(len(face)):
            _paint_detail(
                face[frame], weights[frame], triangles, positions, texture[frame], drawn[frame], image[frame]
            )  # fmt: skip
        return torch.from_numpy(image)


def _host(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().numpy())


@compiled(nogil=True)
def _paint(face, weights, faces, normals, facing, colours, nmfc, shape, front):
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
def _paint_detail(face, weights, faces, positions, texture, front, image):
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
