"""Code dicts to conditioning images by torch: on a GPU, and with the wrinkles that DECA's detail decoder makes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.drawing_rules import DEPTH_OFFSET, LEAST_NORMAL
from data_prep.head_fit.head_assets import HeadAssets
from data_prep.head_fit.head_drawing import Renderer, Renders, nmfc_colours
from data_prep.head_fit.view import View
from DECA_torch_bridge.deca_model import DetailDecoder
from DECA_torch_bridge.flame import Flame, FlameOutput, place_in_picture, to_image_space
from DECA_torch_bridge.raster import Fragments, NumbaRasteriser, Rasteriser, TorchRasteriser, interpolate
from DECA_torch_bridge.shading import NumbaShader, Shader, TorchShader, texture_grid, texture_image

__all__ = [
    "TEXTURE_SIZE",
    "TextureSpace",
    "TorchRenderer",
    "detail_normals",
    "displace",
    "fastest_backend",
    "grid_faces",
    "vertex_normals",
]

# Wrinkles: displacement along the normal in texture space, turned into normals of the finer surface.

# Texels at the borders that belong to no triangle, as DECA's own grid leaves them.
_COLUMNS_LEFT_OUT = 2
_ROWS_LEFT_OUT = 5


def displace(
    positions: Float[Tensor, "b s s 3"],
    normals: Float[Tensor, "b s s 3"],
    decoded: Float[Tensor, "b s s"],
    fixed: Float[Tensor, "s s"],
) -> Float[Tensor, "b s s 3"]:
    """Returns the finer surface, a point per texel.

    Args:
      positions: Surface of the head by texel, metres.
      normals: Its normals.
      decoded: Metres along them, of each face: the detail decoder's, where it counts.
      fixed: Metres along them that every face has.
    """
    return positions + decoded[..., None] * normals + fixed[..., None] * normals


def grid_faces(size: int) -> Int[Tensor, "f 3"]:
    """Returns the triangles between texels (row-major numbers) of the finer surface, two a square, row by row."""
    rows = torch.arange(_ROWS_LEFT_OUT, size - _ROWS_LEFT_OUT - 1)[None, :, None]
    columns = torch.arange(_COLUMNS_LEFT_OUT, size - _COLUMNS_LEFT_OUT - 1)[:, None, None]
    corner = rows * size + columns
    upper = torch.cat([corner, corner + size, corner + 1], dim=-1)
    lower = torch.cat([corner + 1, corner + size, corner + size + 1], dim=-1)
    return torch.stack([upper, lower], dim=2).reshape(-1, 3)


def detail_normals(surface: Float[Tensor, "b s s 3"]) -> Float[Tensor, "b s s 3"]:
    """Returns unit normals of a surface given by texel, those of the triangles of `grid_faces`; 0 outside them."""
    rows = slice(_ROWS_LEFT_OUT, surface.shape[1] - _ROWS_LEFT_OUT)
    columns = slice(_COLUMNS_LEFT_OUT, surface.shape[2] - _COLUMNS_LEFT_OUT)
    inner = surface[:, rows, columns]
    here, right = inner[:, :-1, :-1], inner[:, :-1, 1:]
    below, across = inner[:, 1:, :-1], inner[:, 1:, 1:]
    upper = torch.linalg.cross(below - here, right - here, dim=-1)
    lower = torch.linalg.cross(below - right, across - right, dim=-1)
    # Each triangle counts at its three corners; padding shifts it there (columns first, then rows).
    total = sum(
        functional.pad(triangle, (0, 0, column, 1 - column, row, 1 - row))
        for triangle, places in ((upper, ((0, 0), (1, 0), (0, 1))), (lower, ((0, 1), (1, 0), (1, 1))))
        for row, column in places
    )
    assert isinstance(total, Tensor)
    unit = total / total.norm(dim=-1, keepdim=True).clamp(min=LEAST_NORMAL)
    margins = (0, 0, _COLUMNS_LEFT_OUT, _COLUMNS_LEFT_OUT, _ROWS_LEFT_OUT, _ROWS_LEFT_OUT)
    return functional.pad(unit, margins)


# Texture space: the head's surface laid out flat, rasterised once and kept.

TEXTURE_SIZE = 256


class TextureSpace(nn.Module):
    """Which triangle covers each texel; the same for every head, whatever its pose.

    Attributes:
      positions: Texture coordinates as -1..1, rows downward.
      faces: Triangles of `positions`, in the order of the mesh's.

    Args:
      uv: Texture coordinates, 0..1, v upward.
      uv_faces: Triangles of texture space.
      size: Side of the square of texels.
      rasteriser: Used once, here.
    """

    positions: Tensor
    faces: Tensor

    def __init__(
        self,
        uv: Float[np.ndarray, "m 2"],
        uv_faces: Int[np.ndarray, "f 3"],
        *,
        size: int = TEXTURE_SIZE,
        rasteriser: Rasteriser | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        u, v = np.array(uv, np.float32).T
        positions = torch.from_numpy(np.stack([u * 2 - 1, -(v * 2 - 1)], axis=1))
        faces = torch.from_numpy(np.array(uv_faces, np.int64))
        flat = torch.cat([positions, torch.ones(len(positions), 1)], dim=1)[None]
        fragments = (rasteriser or TorchRasteriser())(flat, faces, size)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("faces", faces, persistent=False)
        for name, value in fragments._asdict().items():
            self.register_buffer(f"_{name}", value, persistent=False)

    @property
    def fragments(self) -> Fragments:
        """What each texel sees."""
        return Fragments(*(self.get_buffer(f"_{name}") for name in Fragments._fields))

    def spread(self, attributes: Float[Tensor, "b n k"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b s s k"]:
        """Returns vertex attributes laid out in texture space (the published `world2uv`), 0 where no triangle is."""
        batch = len(attributes)
        fragments = Fragments(*(value.expand(batch, *value.shape[1:]) for value in self.fragments))
        return interpolate(fragments, faces, attributes)


# Unit normals at the vertices of a mesh.


def vertex_normals(vertices: Float[Tensor, "b n 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b n 3"]:
    """Returns sums of the adjacent faces' normals, larger faces counting more, divided by max(norm, 1e-6).

    Each corner takes the cross product of its own two edges; the three differ by rounding only.
    """
    corners = [vertices[:, faces[:, corner]] for corner in range(3)]
    normals = torch.zeros_like(vertices)
    for corner in (1, 2, 0):
        here, following, previous = (corners[(corner + step) % 3] for step in range(3))
        product = torch.linalg.cross(following - here, previous - here, dim=-1)
        normals = normals.index_add(1, faces[:, corner], product)
    return normals / normals.norm(dim=-1, keepdim=True).clamp(min=LEAST_NORMAL)


class _Surface(NamedTuple):
    """Heads of some frames, wherever they are seen from."""

    head: FlameOutput
    normals: Tensor


class TorchRenderer(Renderer):
    """Draws all that `HeadRenderer` draws, by torch, and more; nothing is drawn with gradients.

    Triangles inside the mouth (`HeadAssets.mouth_faces`) are left out.

    Args:
      assets: The head.
      rasteriser: Finds what each pixel sees; `TorchRasteriser` if None.
      shader: Paints it; `TorchShader` if None. `fastest_backend` gives the quickest two of a device.
      detail_decoder: DECA's `D_detail`, for detail-shape pictures.
      with_texture: Draw the textured head as well.
      device: Where torch computes.
      chunk: Frames drawn at a time.

    Raises:
      InputError: Texture is asked for of a head without an albedo model.
    """

    def __init__(
        self,
        assets: HeadAssets,
        *,
        rasteriser: Rasteriser | None = None,
        shader: Shader | None = None,
        detail_decoder: DetailDecoder | None = None,
        with_texture: bool = False,
        device: str | torch.device = "cpu",
        chunk: int = 16,
    ) -> None:
        super().__init__((assets.shape_size, assets.expression_size), chunk=chunk)
        self._device = torch.device(device)
        self._rasteriser = rasteriser or TorchRasteriser()
        self._shader = shader or TorchShader()
        self._flame = Flame(assets).to(self._device)
        kept = np.setdiff1d(np.arange(len(assets.faces)), assets.mouth_faces)
        self._drawn_faces = self._flame.faces[torch.from_numpy(kept).to(self._device)]
        self._drawn_uv_faces = self._tensor(assets.uv_faces[kept]).long()
        self._colours = self._tensor(nmfc_colours(assets.v_template.astype(np.float32)))
        self._decoder = None if detail_decoder is None else detail_decoder.eval().to(self._device)
        self._space = (
            TextureSpace(assets.uv, assets.uv_faces).to(self._device) if self._needs_space(with_texture) else None
        )
        self._detail_mask = self._tensor(assets.uv_face_eye_mask)
        self._fixed_displacement = self._tensor(assets.fixed_displacement)
        self._albedo: tuple[Tensor, Tensor] | None = None
        if with_texture:
            if assets.albedo_mean is None or assets.albedo_basis is None:
                raise InputError("texture: these assets have no albedo model; add FLAME_albedo_from_BFM.npz to them")
            self._albedo = self._tensor(assets.albedo_mean), self._tensor(assets.albedo_basis)

    def _needs_space(self, with_texture: bool) -> bool:
        return with_texture or self._decoder is not None

    def _check(self, codes: CodeDict, view: View) -> None:
        super()._check(codes, view)
        if self._decoder is not None and codes.detail is None:
            raise InputError("code dict: no detail codes, but the renderer has a detail decoder; leave the decoder out")
        if self._albedo is not None and (codes.tex is None or codes.light is None):
            raise InputError("code dict: no texture coefficients or no light, but the renderer is to draw texture")

    @torch.no_grad()
    def _draw(self, codes: CodeDict, surface: _Surface, view: View) -> Renders:
        cam, placement = self._tensor(codes.cam), self._tensor(view.placement)
        head, normals = surface
        placed = place_in_picture(to_image_space(head.vertices, cam), placement, view.size)
        placed[..., 2] += DEPTH_OFFSET
        fragments = self._rasteriser(placed, self._drawn_faces, view.size)
        # The camera only shifts, scales and turns y and z round: so it does to normals.
        images = self._shader.paint(fragments, self._drawn_faces, normals, -normals[..., 2], self._colours)
        detail = None
        if self._decoder is not None:
            detail = self._detail(codes, head.vertices, normals, fragments, images.front)
        texture = None if self._albedo is None else self._texture(codes, normals, fragments)
        return Renders(
            codes.frame_index,
            _host(images.nmfc),
            _host(images.shape),
            None if detail is None else _host(detail),
            None if texture is None else _host(texture),
            _host(fragments.face >= 0),
            _host(self._marks(head, codes, view)),
        )

    @torch.no_grad()
    def _surface(self, codes: CodeDict) -> _Surface:
        head = self._head(codes)
        return _Surface(head, vertex_normals(head.vertices, self._flame.faces))

    @torch.no_grad()
    def _landmarks(self, codes: CodeDict, view: View) -> Float[np.ndarray, "t 68 2"]:
        return _host(self._marks(self._head(codes), codes, view))

    def _head(self, codes: CodeDict) -> FlameOutput:
        return self._flame(self._tensor(codes.shape), self._tensor(codes.exp), self._tensor(codes.pose))

    def _marks(self, head: FlameOutput, codes: CodeDict, view: View) -> Float[Tensor, "t 68 2"]:
        placed = to_image_space(head.landmarks2d, self._tensor(codes.cam))
        marks = place_in_picture(placed, self._tensor(view.placement), view.size)
        height, width = view.size
        return (marks[..., :2] + 1) * marks.new_tensor([width / 2, height / 2]) - 0.5

    def _detail(
        self, codes: CodeDict, vertices: Tensor, normals: Tensor, fragments: Fragments, front: Tensor
    ) -> Tensor:
        assert self._decoder is not None and self._space is not None and codes.detail is not None
        pose, expression, detail = (self._tensor(values) for values in (codes.pose, codes.exp, codes.detail))
        decoded = self._decoder(pose[:, 3:], expression, detail) * self._detail_mask
        places, directions = (self._space.spread(values, self._flame.faces) for values in (vertices, normals))
        surface = displace(places, directions, decoded, self._fixed_displacement)
        positions = self._space.positions
        return self._shader.paint_detail(fragments, self._drawn_uv_faces, positions, detail_normals(surface), front)

    def _texture(self, codes: CodeDict, normals: Tensor, fragments: Fragments) -> Tensor:
        assert self._albedo is not None and self._space is not None
        assert codes.tex is not None and codes.light is not None
        mean, basis = self._albedo
        tex, light = self._tensor(codes.tex), self._tensor(codes.light)
        count = min(tex.shape[1], basis.shape[-1])
        albedo = mean + torch.einsum("tk,hwck->thwc", tex[:, :count], basis[..., :count])
        grid = texture_grid(fragments, self._drawn_uv_faces, self._space.positions)
        return texture_image(fragments, grid, interpolate(fragments, self._drawn_faces, normals), albedo, light)

    def _tensor(self, values: np.ndarray) -> Tensor:
        kind = np.float32 if values.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.array(values, kind)).to(self._device)


def fastest_backend(device: str | torch.device = "cpu") -> tuple[Rasteriser, Shader]:
    """Returns rasteriser and shader for a device: the compiled ones on the CPU, torch's elsewhere."""
    if torch.device(device).type != "cpu":
        return TorchRasteriser(), TorchShader()
    return NumbaRasteriser(), NumbaShader()


def _host(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
