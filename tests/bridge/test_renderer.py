"""What only torch draws: on any device, wrinkles and textures; its compiled backend draws the same pictures."""

import dataclasses

import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from data_prep.head_fit.view import crop_view
from DECA_torch_bridge.detail_decoder import DetailDecoder
from DECA_torch_bridge.renderer import TorchRenderer, fastest_backend
from tests.bridge.golden_head import golden_assets, golden_codes, some_codes


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
