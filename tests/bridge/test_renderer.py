"""What only torch draws: on any device, wrinkles and textures; its compiled backend draws the same pictures."""

import dataclasses

import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from data_prep.head_fit.view import crop_view
from DECA_torch_bridge.deca_model import DetailDecoder
from DECA_torch_bridge.renderer import (
    TextureSpace,
    TorchRenderer,
    detail_normals,
    displace,
    fastest_backend,
    grid_faces,
    vertex_normals,
)
from tests.data_prep.head_fit.golden_head import golden_assets, golden_codes, some_codes


def test_compiled_backend_draws_the_same_pictures():
    rasteriser, shader = fastest_backend("cpu")
    renderer = TorchRenderer(golden_assets())
    fast = TorchRenderer(golden_assets(), rasteriser=rasteriser, shader=shader)
    view = crop_view(some_codes(), 96)
    ours, reference = fast.renders(some_codes(), view=view), renderer.renders(some_codes(), view=view)
    for name in ("nmfc", "shape", "alpha", "landmarks"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(reference, name))


def test_detail_needs_a_decoder_and_codes_and_changes_with_them():
    torch.manual_seed(0)
    rasteriser, shader = fastest_backend("cpu")
    both = [
        TorchRenderer(golden_assets(), detail_decoder=DetailDecoder(), rasteriser=r, shader=s)
        for r, s in ((rasteriser, shader), (None, None))
    ]
    both[1]._decoder = both[0]._decoder
    codes = some_codes(1)
    fast, reference = (renderer.renders(codes, view=crop_view(codes, 64)).detail_shape for renderer in both)
    assert fast is not None and fast.max() > 0.3
    np.testing.assert_allclose(fast, reference, atol=1e-4)
    other = dataclasses.replace(codes, detail=codes.detail + 10)
    assert np.abs(both[0].renders(other, view=crop_view(codes, 64)).detail_shape - fast).max() > 1e-3
    with pytest.raises(InputError, match="no detail codes"):
        both[0].renders(dataclasses.replace(codes, detail=None))


def test_texture_is_drawn_where_there_is_an_albedo_model():
    with pytest.raises(InputError, match="no albedo model"):
        TorchRenderer(golden_assets(), with_texture=True)
    grey = np.full((256, 256, 3), 0.5, np.float32)
    assets = dataclasses.replace(golden_assets(), albedo_mean=grey, albedo_basis=np.zeros((256, 256, 3, 8), np.float32))
    codes = golden_codes()
    light = np.zeros((1, 9, 3), np.float32)
    light[:, 0] = (1, 2, 3)
    texture = TorchRenderer(assets, with_texture=True).renders(dataclasses.replace(codes, light=light)).texture
    brightest = texture.reshape(-1, 3).max(axis=0)
    # A constant harmonic of 0.2821 on grey.
    np.testing.assert_allclose(brightest, 0.5 * 0.28209479 * np.array([1, 2, 3]), rtol=1e-4)


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
