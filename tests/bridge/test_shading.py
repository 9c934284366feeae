"""Lamps, spherical harmonics and masks by hand; the compiled shader equals the reference."""

import numpy as np
import torch

from DECA_torch_bridge.raster import Fragments, TorchRasteriser
from DECA_torch_bridge.shading import NumbaShader, TorchShader, harmonic_shading, lamp_shading, sample_texture
from tests.data_prep.head_fit.golden_head import golden_arrays, golden_assets


def drawing():
    golden = golden_arrays()
    points = torch.from_numpy(golden["proj/trans_verts"]).clone()
    points[..., 2] += 10
    faces = torch.from_numpy(golden["model/f"].astype(np.int64))
    return TorchRasteriser()(points, faces, 64), faces


def test_a_surface_that_looks_ahead_gets_the_five_lamps():
    # Four lamps at 1/sqrt(3) and one straight ahead.
    expected = 1.7 * (4 / np.sqrt(3) + 1) / 5
    np.testing.assert_allclose(lamp_shading(torch.tensor([0.0, 0, 1])), expected, rtol=1e-6)
    assert lamp_shading(torch.tensor([0.0, 0, -1])) == 0


def test_harmonics_are_those_of_the_formula():
    x, y, z = normal = np.array([0.3, -0.5, 0.8])
    light = np.random.default_rng(0).standard_normal((9, 3))
    factors = [0.28209479, *[1.02332671] * 3, *[0.85808553] * 3, 0.42904277, 0.24770796]
    harmonics = [1, x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1]
    expected = sum(f * h * row for f, h, row in zip(factors, harmonics, light, strict=True))
    found = harmonic_shading(torch.from_numpy(normal).view(1, 1, 1, 3), torch.from_numpy(light)[None])
    # The factors above have eight digits.
    np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-7)


def test_numba_paints_nmfc_and_shape_as_torch_to_the_last_bit():
    fragments, faces = drawing()
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(1, 216, 3, generator=generator), dim=-1)
    colours = torch.rand(216, 3, generator=generator)
    arguments = (fragments, faces, normals, -normals[..., 2], colours)
    for ours, reference in zip(NumbaShader().paint(*arguments), TorchShader().paint(*arguments), strict=True):
        assert torch.equal(ours, reference)


def test_numba_paints_detail_as_torch():
    fragments, faces = drawing()
    generator = torch.Generator().manual_seed(0)
    texture = torch.randn(1, 48, 48, 3, generator=generator)
    positions = torch.from_numpy(golden_assets().uv) * 2.4 - 1.2
    arguments = (fragments, faces, positions, texture, fragments.face >= 0)
    # torch's look-up orders its roundings otherwise; positions of some 50 texels carry 4e-6, values differ by up to 5.
    torch.testing.assert_close(
        NumbaShader().paint_detail(*arguments), TorchShader().paint_detail(*arguments), atol=5e-5, rtol=0
    )


def test_what_looks_away_and_the_background_stay_black():
    fragments, faces = drawing()
    normals = torch.zeros(1, 216, 3)
    normals[..., 2] = 1
    for shader in (TorchShader(), NumbaShader()):
        away = shader.paint(fragments, faces, normals, torch.full((1, 216), 0.2), torch.ones(216, 3))
        assert not away.front.any()
        assert (away.nmfc == 0).all()
        assert (away.shape == 0).all()
        ahead = shader.paint(fragments, faces, normals, torch.full((1, 216), 0.1), torch.ones(216, 3))
        assert torch.equal(ahead.front, fragments.face >= 0)
        assert (ahead.shape[~ahead.front] == 0).all()
        assert (ahead.shape[ahead.front] > 0.5).all()


def test_light_reaches_vertices_and_weights_but_masks_have_no_gradient():
    fragments, faces = drawing()
    weights = fragments.barycentric.clone().requires_grad_()
    normals = torch.randn(1, 216, 3).requires_grad_()
    facing = torch.zeros(1, 216).requires_grad_()
    held = Fragments(fragments.face, weights, fragments.depth)
    images = TorchShader().paint(held, faces, normals, facing, torch.rand(216, 3))
    total = images.nmfc.sum() + images.shape.sum()
    gradients = torch.autograd.grad(total, [weights, normals, facing], allow_unused=True)
    assert gradients[0].abs().max() > 0
    assert gradients[1].abs().max() > 0
    assert gradients[2] is None


def test_texture_look_up_is_exact_at_the_middle_of_a_texel():
    texture = torch.arange(16.0).view(1, 4, 4, 1)
    grid = torch.tensor([-0.75, 0.25]).view(1, 1, 1, 2)
    assert sample_texture(texture, grid).item() == 8
