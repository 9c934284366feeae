"""Code dicts to conditioning images by torch: on a GPU, and with the wrinkles that DECA's detail decoder makes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.drawing_rules import DEPTH_OFFSET
from data_prep.head_fit.head_drawing import Renderer, Renders, nmfc_colours
from data_prep.head_fit.view import View
from DECA_torch_bridge.camera import place_in_picture, to_image_space
from DECA_torch_bridge.detail_decoder import DetailDecoder
from DECA_torch_bridge.displacement import detail_normals, displace
from DECA_torch_bridge.flame import Flame, FlameOutput
from DECA_torch_bridge.head_assets import HeadAssets
from DECA_torch_bridge.raster import Fragments, NumbaRasteriser, Rasteriser, TorchRasteriser, interpolate
from DECA_torch_bridge.shading import NumbaShader, Shader, TorchShader, texture_grid, texture_image
from DECA_torch_bridge.texture_space import TextureSpace
from DECA_torch_bridge.vertex_normals import vertex_normals

__all__ = ["TorchRenderer", "fastest_backend"]


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
