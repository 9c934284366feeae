"""Heads are drawn where they belong, as torch draws them, whatever the chunks and threads, and without their mouths."""

import dataclasses

import cv2
import numpy as np
import pytest

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from data_prep.head_fit.head_assets import HeadAssets, builtin_assets, head_model
from data_prep.head_fit.head_drawing import HeadRenderer, image_u8, nmfc_colours
from data_prep.head_fit.view import aligned_view, crop_view, source_view
from DECA_torch_bridge.renderer import TorchRenderer, fastest_backend
from tests.data_prep.head_fit.golden_head import golden_arrays, golden_assets, golden_codes, some_codes

PICTURES = ("frame_index", "nmfc", "shape", "alpha", "landmarks")


def renderer_of(assets: HeadAssets, **options) -> HeadRenderer:
    return HeadRenderer(head_model(assets), **options)


@pytest.fixture(scope="module")
def renderer():
    return renderer_of(golden_assets())


def test_pictures_are_the_golden_ones(renderer):
    renders, golden = renderer.renders(golden_codes(), view=crop_view(golden_codes(), 64)), golden_arrays()
    # From coefficients: a pixel on an edge may differ, the rest by rounding of vertices near 1e-7 and of their normals.
    for found, name in ((renders.nmfc, "render/nmfc_images"), (renders.shape, "render/shape_images")):
        differing = np.abs(found - golden[name].transpose(0, 2, 3, 1)).max(axis=-1) > 1e-4
        assert differing.sum() <= 2
    assert (renders.alpha != golden["render/alpha_images"][:, 0].astype(bool)).sum() <= 2
    pixels = 32 * (golden["proj/landmarks2d"] + 1) - 0.5
    np.testing.assert_allclose(renders.landmarks, pixels, atol=1e-4)


def random_codes(frames: int) -> CodeDict:
    """People whose heads turn, mouths open and faces move, in the middle of their crops."""
    rng = np.random.default_rng(1)
    pose = rng.normal(0, 0.25, (frames, 6)).astype(np.float32)
    pose[:, 3:] = np.abs(pose[:, 3:]) * (1, 0.2, 0.1)
    shape, exp = (scale * rng.standard_normal((frames, size)) for scale, size in ((0.7, 100), (0.3, 50)))
    cam = np.float32([8.5, 0.01, 0.0]) + rng.normal(0, 0.01, (frames, 3)).astype(np.float32)
    return CodeDict(np.arange(frames), shape.astype(np.float32), exp.astype(np.float32), pose, cam)


@pytest.mark.parametrize("assets", [golden_assets, builtin_assets])
def test_pictures_of_random_codes_are_those_of_torch(assets):
    rasteriser, shader = fastest_backend()
    codes = random_codes(6)
    view = crop_view(codes, 128)
    found = renderer_of(assets()).renders(codes, view=view)
    expected = TorchRenderer(assets(), rasteriser=rasteriser, shader=shader).renders(codes, view=view)
    # Vertices differ by rounding: an edge may move across the middle of a pixel, rarely. Of 98k pixels.
    assert (found.alpha != expected.alpha).sum() <= 1
    assert found.alpha.mean() > 0.3
    for name in ("nmfc", "shape"):
        error = np.abs(getattr(found, name) - getattr(expected, name)).max(axis=-1)
        assert (error > 1e-4).sum() <= 2
        assert np.median(error[found.alpha]) < 1e-6
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1e-4)


@pytest.mark.parametrize("assets", [golden_assets, builtin_assets])
def test_landmarks_of_any_yaw_are_those_of_torch(assets):
    pose = np.zeros((24, 6), np.float32)
    pose[:, 1] = np.linspace(-1.2, 1.2, 24)
    codes = dataclasses.replace(random_codes(24), pose=pose)
    found, expected = renderer_of(assets()).landmarks(codes), TorchRenderer(assets()).landmarks(codes)
    # Pixels of the crop; the contour's row is the same, or its points would lie millimetres apart.
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_chunks_hold_every_frame_once_in_order_and_it_matters_not_how_many_nor_by_how_many_threads():
    codes = some_codes(5)
    view = crop_view(codes, 48)
    whole = renderer_of(golden_assets()).renders(codes, view=view)
    parts = list(renderer_of(golden_assets(), chunk=2).chunks(codes, view=view))
    assert [len(part.nmfc) for part in parts] == [2, 2, 1]
    threaded = renderer_of(golden_assets(), threads=3).renders(codes, view=view)
    for name in PICTURES:
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
        np.testing.assert_array_equal(getattr(threaded, name), getattr(whole, name))
    assert whole.frame_index.tolist() == [0, 2, 4, 6, 8]


def test_several_views_and_landmarks_alone_are_what_each_drawing_gives_to_the_bit():
    codes, renderer = some_codes(3), renderer_of(golden_assets(), chunk=2)
    views = [crop_view(codes, 48), crop_view(codes, 64)]
    for view, found in zip(views, renderer.views(codes, views), strict=True):
        expected = renderer.renders(codes, view=view)
        for name in PICTURES:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_array_equal(renderer.landmarks(codes, view=view), expected.landmarks)


def test_drawing_into_the_source_is_what_warping_the_crop_aims_at(renderer):
    codes = some_codes()
    drawn = renderer.renders(codes, view=source_view(codes))
    assert drawn.nmfc.shape == (3, 200, 300, 3)
    crops, placements = renderer.renders(codes).nmfc, source_view(codes).placement
    warped = np.stack([cv2.warpAffine(crop, place, (300, 200)) for crop, place in zip(crops, placements, strict=True)])
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
    less = renderer_of(half).renders(codes, view=view)
    none = renderer_of(dataclasses.replace(golden_assets(), mouth_faces=np.arange(374, dtype=np.int32)))
    assert less.alpha.sum() < whole.alpha.sum()
    assert not none.renders(codes, view=view).alpha.any()


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


def test_colours_are_places_on_the_mean_head():
    colours = nmfc_colours(np.float32([[0, -1, 4], [1, 1, 5], [0.5, 0, 8]]))
    assert colours.tolist() == [[0, 0, 0], [1, 1, 0.25], [0.5, 0.5, 1]]
