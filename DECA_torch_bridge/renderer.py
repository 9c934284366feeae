"""Code dicts to conditioning images: NMFC, shape and detail-shape pictures of every frame; also of edited codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from DECA_torch_bridge.camera import place_in_picture, to_image_space
from DECA_torch_bridge.detail_decoder import DetailDecoder
from DECA_torch_bridge.displacement import detail_normals, displace
from DECA_torch_bridge.flame import Flame, FlameOutput
from DECA_torch_bridge.head_assets import HeadAssets
from DECA_torch_bridge.nmfc import nmfc_colours
from DECA_torch_bridge.raster import Fragments, Rasteriser, TorchRasteriser, interpolate
from DECA_torch_bridge.shading import Shader, TorchShader, texture_grid, texture_image
from DECA_torch_bridge.texture_space import TextureSpace
from DECA_torch_bridge.vertex_normals import vertex_normals
from DECA_torch_bridge.view import View, crop_view

__all__ = ["DEPTH_OFFSET", "Renderer", "Renders", "fastest_backend", "image_u8", "join_renders"]

# Upstream: added again, in place, before each of three draws (renderer.py); only the test for a near plane sees it.
DEPTH_OFFSET = 10.0
"""Added to z of image space, so that the head lies behind the near plane."""


@dataclasses.dataclass(frozen=True, eq=False)
class Renders:
    """Pictures of t frames; float32, 0..1, black where nothing is drawn.

    Attributes:
      frame_index: Number of each frame in the source video.
      nmfc: Normalised mean face coordinates as colour.
      shape: The coarse surface in grey.
      detail_shape: The surface with wrinkles in grey; None without a detail decoder.
      texture: The head in its colours and light, where asked for; values may leave 0..1.
      alpha: Where some part of the head is, whichever way it looks.
      landmarks: 68 points as a detector would see them, in pixels of the picture (the middle of the first is 0).
    """

    frame_index: Int[np.ndarray, " t"]
    nmfc: Float[np.ndarray, "t h w 3"]
    shape: Float[np.ndarray, "t h w 3"]
    detail_shape: Float[np.ndarray, "t h w 3"] | None
    texture: Float[np.ndarray, "t h w 3"] | None
    alpha: Bool[np.ndarray, "t h w"]
    landmarks: Float[np.ndarray, "t 68 2"]


class _Surface(NamedTuple):
    """Heads of some frames, wherever they are seen from."""

    head: FlameOutput
    normals: Tensor


class Renderer:
    """Draws code dicts of one head model; nothing is drawn with gradients.

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
        self._device = torch.device(device)
        self._chunk = chunk
        self._rasteriser = rasteriser or TorchRasteriser()
        self._shader = shader or TorchShader()
        self._flame = Flame(assets).to(self._device)
        kept = np.setdiff1d(np.arange(len(assets.faces)), assets.mouth_faces)
        self._drawn_faces = self._flame.faces[torch.from_numpy(kept).to(self._device)]
        self._drawn_uv_faces = self._tensor(assets.uv_faces[kept]).long()
        self._colours = nmfc_colours(self._tensor(assets.v_template))
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

    def renders(self, codes: CodeDict, *, view: View | None = None) -> Renders:
        """Returns pictures of all frames; see `chunks` for long clips.

        Args:
          codes: Frames to draw, edited or not.
          view: Pictures to draw into; the 224-pixel crop if None.

        Raises:
          InputError: Codes lack what is to be drawn, or do not fit the head or the view.
        """
        return join_renders(list(self.chunks(codes, view=view)))

    def views(self, codes: CodeDict, views: Sequence[View]) -> list[Renders]:
        """Returns pictures of all frames in each view, as `renders`; what no view changes is computed once."""
        parts: list[list[Renders]] = [[] for _ in views]
        for view in views:
            self._check(codes, view)
        for some in self._slices(codes):
            surface = self._surface(codes[some])
            for view, drawn in zip(views, parts, strict=True):
                drawn.append(self._draw(codes[some], surface, View(view.size, view.placement[some])))
        return [join_renders(drawn) for drawn in parts]

    def chunks(self, codes: CodeDict, *, view: View | None = None) -> Iterator[Renders]:
        """Yields pictures of some frames at a time, in order; arguments as `renders`."""
        view = view or crop_view(codes)
        self._check(codes, view)
        for some in self._slices(codes):
            yield self._draw(codes[some], self._surface(codes[some]), View(view.size, view.placement[some]))

    @torch.no_grad()
    def landmarks(self, codes: CodeDict, *, view: View | None = None) -> Float[np.ndarray, "t 68 2"]:
        """Returns `Renders.landmarks` of all frames, for which nothing need be drawn; arguments as `renders`."""
        view = view or crop_view(codes)
        self._check(codes, view)
        parts = []
        for some in self._slices(codes):
            head = self._head(codes[some])
            parts.append(_host(self._marks(head, codes[some], View(view.size, view.placement[some]))))
        return np.concatenate(parts)

    def _slices(self, codes: CodeDict) -> Iterator[slice]:
        return (slice(start, start + self._chunk) for start in range(0, len(codes), self._chunk))

    def _needs_space(self, with_texture: bool) -> bool:
        return with_texture or self._decoder is not None

    def _check(self, codes: CodeDict, view: View) -> None:
        sizes = (codes.shape.shape[1], codes.exp.shape[1])
        expected = (self._flame.shape_size, self._flame.expression_size)
        if sizes != expected:
            raise InputError(f"code dict: {sizes} shape and expression coefficients, this head takes {expected}")
        if not len(codes):
            raise InputError("code dict: no frames, expected one or more")
        if len(view.placement) != len(codes):
            raise InputError(f"view: {len(view.placement)} placements for {len(codes)} frames, expected one each")
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
    from DECA_torch_bridge.raster_numba import NumbaRasteriser
    from DECA_torch_bridge.shading_numba import NumbaShader

    return NumbaRasteriser(), NumbaShader()


def join_renders(parts: list[Renders]) -> Renders:
    """Returns the pictures of all parts as one."""
    fields: dict[str, np.ndarray | None] = {}
    for field in dataclasses.fields(Renders):
        values = [getattr(part, field.name) for part in parts]
        fields[field.name] = None if values[0] is None else np.concatenate(values)
    return Renders(**fields)  # type: ignore[arg-type]


def image_u8(image: Float[np.ndarray, "*b 3"], *, truncate: bool = False) -> UInt8[np.ndarray, "*b 3"]:
    """Returns 0..1 as 0..255, clipped and rounded.

    Args:
      image: Colours.
      truncate: Round down.
    """
    # Upstream: reconstruct.py rounds down, create_inputs.py to the nearest; here both mean the nearest by default.
    scaled = np.clip(image * np.float32(255), 0, 255)
    return (scaled if truncate else np.rint(scaled)).astype(np.uint8)


def _host(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
