"""Shading of rasterised heads by torch: spherical harmonics, the lamps of shape images, and NMFC.

Images are channels last, float32, 0..1 (0 where nothing is seen).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from asccl_jax.head.drawing_rules import LAMP_BRIGHTNESS, LAMPS, NORMAL_LIMIT, SHAPE_GREY
from data_prep.head_fit.drawing_kernels import paint, paint_detail
from DECA_torch_bridge.raster import Fragments, interpolate

__all__ = [
    "HeadImages",
    "NumbaShader",
    "Shader",
    "TorchShader",
    "harmonic_shading",
    "lamp_shading",
    "sample_texture",
    "texture_front",
    "texture_grid",
    "texture_image",
]

_TEXTURE_NORMAL_LIMIT = -0.05

# Real spherical harmonics up to order 2 times the cosine lobe, as DECA's light coefficients have them.
_HARMONIC_FACTORS = (
    0.28209479177387814,
    *(1.0233267079464885,) * 3,
    *(0.8580855308097834,) * 3,
    0.4290427654048917,
    0.24770795610037571,
)


class HeadImages(NamedTuple):
    """Conditioning images of heads, and where they show one.

    Attributes:
      nmfc: Normalised mean face coordinates as colour: where on the mean head each pixel lies.
      shape: The surface in grey under five lamps.
      front: Pixels whose surface is turned to the camera.
    """

    nmfc: Float[Tensor, "b h w 3"]
    shape: Float[Tensor, "b h w 3"]
    front: Bool[Tensor, "b h w"]


class Shader(Protocol):
    """Anything that paints fragments."""

    def paint(
        self,
        fragments: Fragments,
        faces: Int[Tensor, "f 3"],
        normals: Float[Tensor, "b n 3"],
        facing: Float[Tensor, "b n"],
        colours: Float[Tensor, "n 3"],
    ) -> HeadImages:
        """Returns NMFC and shape image.

        Args:
          fragments: What each pixel sees.
          faces: Triangles.
          normals: Of the vertices, in the head's axes; they take the light.
          facing: z of the vertices' normals in image space; decides what is drawn.
          colours: NMFC colours of the vertices.
        """
        ...

    def paint_detail(
        self,
        fragments: Fragments,
        texture_faces: Int[Tensor, "f 3"],
        texture_positions: Float[Tensor, "m 2"],
        texture_normals: Float[Tensor, "b s s 3"],
        front: Bool[Tensor, "b h w"],
    ) -> Float[Tensor, "b h w 3"]:
        """Returns the shape image with normals from texture space.

        Args:
          fragments: What each pixel sees.
          texture_faces: Corners of each triangle in texture space.
          texture_positions: Those corners, -1..1, rows downward.
          texture_normals: Normals by texture position.
          front: Pixels to draw, of `paint`.
        """
        ...


class TorchShader:
    """The reference: any device, batched, differentiable except for what is drawn."""

    def paint(
        self,
        fragments: Fragments,
        faces: Int[Tensor, "f 3"],
        normals: Float[Tensor, "b n 3"],
        facing: Float[Tensor, "b n"],
        colours: Float[Tensor, "n 3"],
    ) -> HeadImages:
        """Returns NMFC and shape image; see `Shader`."""
        turned = interpolate(fragments, faces, facing.detach()[..., None])[..., 0]
        front = (turned < NORMAL_LIMIT) & (fragments.face >= 0)
        shading = lamp_shading(interpolate(fragments, faces, normals))
        shape = (_grey(fragments) * shading * front)[..., None].expand(-1, -1, -1, 3)
        nmfc = interpolate(fragments, faces, colours[None]) * front[..., None]
        return HeadImages(nmfc, shape, front)

    def paint_detail(
        self,
        fragments: Fragments,
        texture_faces: Int[Tensor, "f 3"],
        texture_positions: Float[Tensor, "m 2"],
        texture_normals: Float[Tensor, "b s s 3"],
        front: Bool[Tensor, "b h w"],
    ) -> Float[Tensor, "b h w 3"]:
        """Returns the shape image with normals from texture space; see `Shader`."""
        grid = texture_grid(fragments, texture_faces, texture_positions)
        shading = lamp_shading(sample_texture(texture_normals, grid))
        return (_grey(fragments) * shading * front)[..., None].expand(-1, -1, -1, 3)


class NumbaShader:
    """The kernels of `data_prep.head_fit`, on one core, float32; no gradients."""

    def paint(
        self,
        fragments: Fragments,
        faces: Int[Tensor, "f 3"],
        normals: Float[Tensor, "b n 3"],
        facing: Float[Tensor, "b n"],
        colours: Float[Tensor, "n 3"],
    ) -> HeadImages:
        """Returns NMFC and shape image; see `Shader`."""
        face, triangles = _numbers(fragments.face), _numbers(faces)
        weights, towards, turned, paints = (
            _floats(values) for values in (fragments.barycentric, normals, facing, colours)
        )
        nmfc, shape = np.empty((*face.shape, 3), np.float32), np.empty((*face.shape, 3), np.float32)
        front = np.empty(face.shape, np.bool_)
        for frame in range(len(face)):
            paint(
                face[frame], weights[frame], triangles, towards[frame], turned[frame], paints,
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
        """Returns the shape image with normals from texture space; see `Shader`."""
        face, triangles, drawn = _numbers(fragments.face), _numbers(texture_faces), front.numpy()
        weights, positions, texture = (
            _floats(values) for values in (fragments.barycentric, texture_positions, texture_normals)
        )
        image = np.empty((*face.shape, 3), np.float32)
        for frame in range(len(face)):
            paint_detail(
                face[frame], weights[frame], triangles, positions, texture[frame], drawn[frame], image[frame]
            )  # fmt: skip
        return torch.from_numpy(image)


def _numbers(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy(), np.int32)


def _floats(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().numpy(), np.float32)


def _grey(fragments: Fragments) -> Float[Tensor, "b h w"]:
    """The grey of the surface. It is interpolated like any colour, and weights add up to a little less than 1."""
    first, second, third = torch.unbind(fragments.barycentric, dim=-1)
    return first * SHAPE_GREY + second * SHAPE_GREY + third * SHAPE_GREY


def lamp_shading(normals: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """Returns the mean light of the five lamps on surfaces with these normals, which need not be of unit length."""
    x, y, z = torch.unbind(normals, dim=-1)
    total = torch.zeros_like(x)
    for right, up, ahead in LAMPS:
        total = total + (x * right + y * up + z * ahead).clamp(0, 1) * LAMP_BRIGHTNESS
    return total / len(LAMPS)


def harmonic_shading(normals: Float[Tensor, "b h w 3"], light: Float[Tensor, "b 9 3"]) -> Float[Tensor, "b h w 3"]:
    """Returns the light on surfaces by nine spherical harmonics.

    Args:
      normals: In the head's axes, not necessarily of unit length.
      light: Coefficients for red, green and blue.
    """
    x, y, z = torch.unbind(normals, dim=-1)
    harmonics = [torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1]
    scaled = torch.stack([factor * term for factor, term in zip(_HARMONIC_FACTORS, harmonics, strict=True)], dim=-1)
    return torch.einsum("bhwk,bkc->bhwc", scaled, light)


def texture_grid(
    fragments: Fragments, texture_faces: Int[Tensor, "f 3"], texture_positions: Float[Tensor, "m 2"]
) -> Float[Tensor, "b h w 2"]:
    """Returns where in texture space each pixel looks: -1..1, rows downward; 0 where nothing is seen."""
    return interpolate(fragments, texture_faces, texture_positions[None])


def sample_texture(texture: Float[Tensor, "b s t k"], grid: Float[Tensor, "b h w 2"]) -> Float[Tensor, "b h w k"]:
    """Returns texture values at positions, bilinear, 0 outside."""
    sampled = functional.grid_sample(texture.movedim(-1, 1), grid, mode="bilinear", align_corners=False)
    return sampled.movedim(1, -1)


def texture_image(
    fragments: Fragments,
    grid: Float[Tensor, "b h w 2"],
    normals: Float[Tensor, "b h w 3"],
    albedo: Float[Tensor, "b s t 3"],
    light: Float[Tensor, "b 9 3"],
) -> Float[Tensor, "b h w 3"]:
    """Returns the textured head under its own light, black where nothing is seen; values may leave 0..1."""
    seen = (fragments.face >= 0)[..., None]
    return sample_texture(albedo, grid) * harmonic_shading(normals, light) * seen


def texture_front(facing: Float[Tensor, "b h w"]) -> Bool[Tensor, "b h w"]:
    """Returns pixels whose texture counts: turned to the camera. `facing` is the interpolated normal's z."""
    return facing < _TEXTURE_NORMAL_LIMIT
