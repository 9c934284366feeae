"""The renderer draws every frame where it belongs, whatever draws it, and leaves the mouth out."""

import dataclasses

import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from DECA_torch_bridge.detail_decoder import DetailDecoder
from DECA_torch_bridge.renderer import Renderer, fastest_backend, image_u8
from DECA_torch_bridge.view import aligned_view, crop_view, source_view, warp
from tests.bridge.golden_head import golden_arrays, golden_assets, some_codes


@pytest.fixture(scope="module")
def renderer():
    return Renderer(golden_assets())


def golden_codes():
    golden = golden_arrays()
    codes = some_codes(1)
    return dataclasses.replace(
        codes, shape=golden["in/shape"], exp=golden["in/exp"], pose=golden["in/pose"], cam=golden["in/cam"]
    )


def test_pictures_are_the_golden_ones(renderer):
    renders, golden = renderer.renders(golden_codes(), view=crop_view(golden_codes(), 64)), golden_arrays()
    # From coefficients: a pixel on an edge may differ, the rest by rounding of vertices near 1e-7 and of their normals.
    for found, name in ((renders.nmfc, "render/nmfc_images"), (renders.shape, "render/shape_images")):
        differing = np.abs(found - golden[name].transpose(0, 2, 3, 1)).max(axis=-1) > 1e-4
        assert differing.sum() <= 2
    assert (renders.alpha != golden["render/alpha_images"][:, 0].astype(bool)).sum() <= 2
    pixels = 32 * (golden["proj/landmarks2d"] + 1) - 0.5
    np.testing.assert_allclose(renders.landmarks, pixels, atol=1e-4)


def test_compiled_backend_draws_the_same_pictures(renderer):
    rasteriser, shader = fastest_backend("cpu")
    fast = Renderer(golden_assets(), rasteriser=rasteriser, shader=shader)
    view = crop_view(some_codes(), 96)
    ours, reference = fast.renders(some_codes(), view=view), renderer.renders(some_codes(), view=view)
    for name in ("nmfc", "shape", "alpha", "landmarks"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(reference, name))


def test_chunks_hold_every_frame_once_in_order(renderer):
    codes = some_codes(5)
    whole = renderer.renders(codes, view=crop_view(codes, 48))
    parts = list(Renderer(golden_assets(), chunk=2).chunks(codes, view=crop_view(codes, 48)))
    assert [len(part.nmfc) for part in parts] == [2, 2, 1]
    assert np.concatenate([part.frame_index for part in parts]).tolist() == [0, 2, 4, 6, 8]
    # Matrix products of other batch sizes round differently: an edge pixel may move.
    joined = np.concatenate([part.nmfc for part in parts])
    assert (np.abs(joined - whole.nmfc).max(axis=-1) > 1e-4).sum() <= 4


def test_several_views_and_landmarks_alone_are_what_each_drawing_gives_to_the_bit():
    codes, renderer = some_codes(3), Renderer(golden_assets(), chunk=2)
    views = [crop_view(codes, 48), crop_view(codes, 64)]
    for view, found in zip(views, renderer.views(codes, views), strict=True):
        expected = renderer.renders(codes, view=view)
        for name in ("frame_index", "nmfc", "shape", "alpha", "landmarks"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_array_equal(renderer.landmarks(codes, view=view), expected.landmarks)


def test_drawing_into_the_source_is_what_warping_the_crop_aims_at(renderer):
    codes = some_codes()
    drawn = renderer.renders(codes, view=source_view(codes))
    assert drawn.nmfc.shape == (3, 200, 300, 3)
    warped = warp(torch.from_numpy(renderer.renders(codes).nmfc), source_view(codes)).numpy()
    # Off the outlines the colours vary slowly.
    inside = (drawn.nmfc.max(axis=-1) > 0) & (warped.max(axis=-1) > 0)
    assert inside.mean() > 0.1
    assert np.median(np.abs(drawn.nmfc - warped)[inside]) < 2e-3
    # Half a pixel of misplacement would be seen here.
    centres = [np.argwhere(image.max(axis=-1) > 0.01).mean(axis=0) for image in (drawn.nmfc[0], warped[0])]
    np.testing.assert_allclose(centres[0], centres[1], atol=0.15)


def test_landmarks_follow_the_view(renderer):
    codes = some_codes()
    crop, source = renderer.renders(codes), renderer.renders(codes, view=source_view(codes))
    expected = (crop.landmarks - codes.tform[:, None, :2, 2]) / 1.6
    np.testing.assert_allclose(source.landmarks, expected, atol=1e-3)
    shift = np.tile(np.array([[1.0, 0, 5], [0, 1, -7]]), (3, 1, 1))
    aligned = renderer.renders(codes, view=aligned_view(codes, shift, 128))
    assert aligned.shape.shape == (3, 128, 128, 3)
    np.testing.assert_allclose(aligned.landmarks, source.landmarks + np.float32([5, -7]), atol=1e-3)


def test_triangles_of_the_mouth_are_left_out(renderer):
    codes = golden_codes()
    view = crop_view(codes, 64)
    whole = renderer.renders(codes, view=view)
    seen = np.unique(golden_arrays()["raster/pix_to_face"])[1:]
    half = dataclasses.replace(golden_assets(), mouth_faces=seen[::2].astype(np.int32))
    less = Renderer(half).renders(codes, view=view)
    none = Renderer(dataclasses.replace(golden_assets(), mouth_faces=np.arange(374, dtype=np.int32)))
    assert less.alpha.sum() < whole.alpha.sum()
    assert not none.renders(codes, view=view).alpha.any()


def test_detail_needs_a_decoder_and_codes_and_changes_with_them():
    torch.manual_seed(0)
    rasteriser, shader = fastest_backend("cpu")
    both = [
        Renderer(golden_assets(), detail_decoder=DetailDecoder(), rasteriser=r, shader=s)
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
        Renderer(golden_assets(), with_texture=True)
    grey = np.full((256, 256, 3), 0.5, np.float32)
    assets = dataclasses.replace(golden_assets(), albedo_mean=grey, albedo_basis=np.zeros((256, 256, 3, 8), np.float32))
    codes = golden_codes()
    light = np.zeros((1, 9, 3), np.float32)
    light[:, 0] = (1, 2, 3)
    texture = Renderer(assets, with_texture=True).renders(dataclasses.replace(codes, light=light)).texture
    brightest = texture.reshape(-1, 3).max(axis=0)
    # A constant harmonic of 0.2821 on grey.
    np.testing.assert_allclose(brightest, 0.5 * 0.28209479 * np.array([1, 2, 3]), rtol=1e-4)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (dataclasses.replace(some_codes(), shape=np.zeros((3, 90), np.float32)), r"\(90, 50\).*takes \(100, 50\)"),
        (some_codes()[:0], "no frames"),
    ],
)
def test_codes_that_do_not_fit_are_refused(renderer, codes, message):
    with pytest.raises(InputError, match=message):
        renderer.renders(codes)


def test_views_that_do_not_fit_are_refused(renderer):
    codes = some_codes()
    with pytest.raises(InputError, match="2 placements for 3 frames"):
        renderer.renders(codes, view=crop_view(codes[:2]))
    with pytest.raises(InputError, match="no tform"):
        source_view(dataclasses.replace(codes, tform=None))
    with pytest.raises(InputError, match="1 matrices for 3 frames"):
        aligned_view(codes, np.zeros((1, 2, 3)))


def test_bytes_are_rounded_and_clipped():
    assert image_u8(np.float32([[-1, 0.5, 2]])).tolist() == [[0, 128, 255]]
    assert image_u8(np.float32([[0.999, 0.5, 2]]), truncate=True).tolist() == [[254, 127, 255]]
