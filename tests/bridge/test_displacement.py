"""Texture space is laid out once; displacement bends its normals."""

import numpy as np
import torch

from DECA_torch_bridge.displacement import detail_normals, displace, grid_faces
from DECA_torch_bridge.texture_space import TextureSpace
from DECA_torch_bridge.vertex_normals import vertex_normals
from tests.bridge.golden_head import golden_assets


def test_normals_by_shifts_are_those_of_the_triangles():
    surface = torch.randn(2, 24, 24, 3, generator=torch.Generator().manual_seed(0))
    by_mesh = vertex_normals(surface.flatten(1, 2), grid_faces(24)).view(2, 24, 24, 3)
    # Sums of up to six products of order 1 in another order; divided by a norm that is rarely below 0.3.
    np.testing.assert_allclose(detail_normals(surface), by_mesh, atol=1e-5)


def test_margins_have_no_normals_and_the_rest_has():
    surface = torch.randn(1, 24, 24, 3, generator=torch.Generator().manual_seed(0))
    length = detail_normals(surface)[0].norm(dim=-1)
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[5:19, 2:22] = True
    np.testing.assert_allclose(length[inside], 1, atol=1e-6)
    assert (length[~inside] == 0).all()


def test_displacement_moves_along_the_normal():
    flat = torch.zeros(1, 4, 4, 3)
    up = torch.tensor([0.0, 0, 1]).expand(1, 4, 4, 3)
    moved = displace(flat, up, torch.full((1, 4, 4), 0.25), torch.full((4, 4), 0.5))
    assert (moved[..., 2] == 0.75).all()
    assert (moved[..., :2] == 0).all()


def test_texture_space_gives_texture_coordinates_back():
    assets = golden_assets()
    space = TextureSpace(assets.uv, assets.uv_faces, size=16)
    positions = torch.from_numpy(assets.uv)[None].expand(2, -1, -1)
    laid_out = space.spread(positions, space.faces)
    rows, columns = torch.nonzero(space.fragments.face[0] >= 0, as_tuple=True)
    assert len(rows) > 200
    # Texel (row r, column c) lies at u = (c + 1/2)/16 and v = 1 - (r + 1/2)/16; weights add up to 1 within 1e-5.
    np.testing.assert_allclose(laid_out[1, rows, columns, 0], (columns + 0.5) / 16, atol=2e-5)
    np.testing.assert_allclose(laid_out[1, rows, columns, 1], 1 - (rows + 0.5) / 16, atol=2e-5)
