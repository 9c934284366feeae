"""Shape images are the bridge's, and their gradients those of finite differences and of torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from asccl_jax.head.drawing_rules import DEPTH_OFFSET
from asccl_jax.head.flame import posed_head
from asccl_jax.head.shape_images import ShapeRenderer
from data_prep.head_fit.head_assets import builtin_assets, head_model
from data_prep.head_fit.view import crop_view
from DECA_torch_bridge.flame import Flame, place_in_picture, to_image_space
from DECA_torch_bridge.raster import TorchRasteriser
from DECA_torch_bridge.renderer import vertex_normals
from DECA_torch_bridge.shading import TorchShader
from tests.data_prep.head_fit.golden_head import golden_assets
from tests.head.heads import coefficients_of, golden_head, golden_template, posed_codes, renders_of

SIZE = 48


@pytest.fixture(scope="module")
def renderer():
    return ShapeRenderer(golden_head(), golden_template(), size=SIZE)


def frontal_template():
    rng = np.random.default_rng(5)
    pose = np.float32([[0.1, 0.15, 0.05, 0, 0.01, 0]])
    template = golden_template()
    shape = 0.7 * rng.standard_normal((1, 100)).astype(np.float32)
    return dataclasses.replace(template, shape=shape, pose=pose, cam=np.float32([[7.5, 0, 0.01]]))


def half_of_the_expression():
    """A head whose coefficients move some of it only: what stays is drawn and lit beforehand."""
    head = golden_head()
    expression = head.expression_basis * (np.arange(216) % 18 < 9)[:, None, None].astype(np.float32)
    weights = np.where(np.arange(216)[:, None] % 18 < 9, head.skinning_weights, np.float32([1, 0, 0, 0, 0]))
    nothing = np.zeros_like(head.pose_basis)
    regressor = head.joint_regressor * (np.arange(216) % 18 >= 9).astype(np.float32)
    return dataclasses.replace(
        head, expression_basis=expression, skinning_weights=weights, pose_basis=nothing, joint_regressor=regressor
    )


def assert_same_pictures(found, expected, covered, *, edge_pixels):
    """Pixels whose triangle is decided by rounding may differ: so many, and no others."""
    error = np.abs(np.asarray(found) - expected).max(axis=-1)
    assert covered.mean() > 0.1
    assert (error > 1e-4).sum() <= edge_pixels
    assert error[~covered].max() == 0 or edge_pixels
    assert np.median(error[covered]) < 1e-6


def test_pictures_of_big_triangles_are_those_of_the_bridge(renderer):
    coefficients = coefficients_of(4)
    found = renderer(jnp.asarray(coefficients))
    assert (found.shape, found.dtype) == ((4, SIZE, SIZE, 3), jnp.float32)
    expected = renders_of(golden_assets(), posed_codes(golden_template(), coefficients), SIZE)
    assert_same_pictures(found, expected.shape, expected.alpha, edge_pixels=2)


def test_pictures_of_the_built_in_head_are_those_of_the_bridge():
    assets, template, coefficients = builtin_assets(), frontal_template(), coefficients_of(3, scale=0.7)
    found = ShapeRenderer(head_model(assets), template, size=112)(jnp.asarray(coefficients))
    expected = renders_of(assets, posed_codes(template, coefficients), 112)
    # 0.4 of 38k pixels are covered by 35k triangles; measured: 1.
    assert_same_pictures(found, expected.shape, expected.alpha, edge_pixels=5)


def test_what_never_moves_is_drawn_and_lit_as_if_it_did():
    head = half_of_the_expression()
    template, coefficients = golden_template(), jnp.asarray(coefficients_of(2))
    split = ShapeRenderer(head, template, size=SIZE)
    # A joint that the expression moves takes every vertex along, if only by nothing.
    regressor = head.joint_regressor.copy()
    regressor[0, np.abs(head.expression_basis).max(axis=(1, 2)) > 0] = 1e-30
    joint = ShapeRenderer(dataclasses.replace(head, joint_regressor=regressor), template, size=SIZE)
    assert 0 < len(split._shaped) < split._lit < 216
    assert 0 < len(split._moving_numbers) < 374
    assert len(joint._shaped) == 216
    ours, theirs = (jax.jit(draw.vertices)(coefficients) for draw in (split, joint))
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
    for one, other in zip(split(coefficients), joint(coefficients), strict=True):
        assert (np.abs(one - other).max(axis=-1) > 1e-5).sum() <= 1
        assert one.max() > 0.3


def test_vertices_are_those_of_the_posed_head(renderer):
    coefficients = coefficients_of(2)
    codes = posed_codes(golden_template(), coefficients)
    given = [jnp.asarray(values) for values in (codes.shape, codes.exp, codes.pose)]
    expected = jax.jit(lambda *some: posed_head(golden_head(), *some).vertices)(*given)
    np.testing.assert_allclose(jax.jit(renderer.vertices)(jnp.asarray(coefficients)), expected, atol=1e-7)


def test_landmarks_are_those_a_detector_sees_of_the_posed_head(renderer):
    coefficients = coefficients_of(2)
    codes = posed_codes(golden_template(), coefficients)
    seen = renders_of(golden_assets(), codes, SIZE).landmarks
    np.testing.assert_allclose(jax.jit(renderer.landmarks)(jnp.asarray(coefficients)), seen, atol=1e-3)


def torch_gradient(coefficients, pull):
    """Through the bridge's drawing, in float64; which triangles are seen is float32 there as well."""
    template, assets = golden_template(), golden_assets()
    leaf = torch.from_numpy(coefficients.astype(np.float64)).requires_grad_()
    count = len(leaf)
    shape, pose, cam = (
        torch.from_numpy(np.repeat(values, count, axis=0)).double()
        for values in (template.shape, template.pose, template.cam)
    )
    pose = torch.cat([pose[:, :3], leaf[:, :1], pose[:, 4:]], dim=1)
    flame = Flame(assets).double()
    vertices = flame(shape, leaf[:, 1:], pose).vertices
    placement = torch.from_numpy(crop_view(posed_codes(template, coefficients), SIZE).placement)
    placed = place_in_picture(to_image_space(vertices, cam), placement, (SIZE, SIZE))
    placed = torch.cat([placed[..., :2], placed[..., 2:] + DEPTH_OFFSET], dim=-1)
    normals = vertex_normals(vertices, flame.faces)
    fragments = TorchRasteriser()(placed, flame.faces, SIZE)
    images = TorchShader().paint(fragments, flame.faces, normals, -normals[..., 2], vertices[0])
    (images.shape * torch.from_numpy(pull)).sum().backward()
    assert leaf.grad is not None
    return images.shape.detach().numpy(), leaf.grad.numpy()


def test_gradients_are_those_of_torch_through_the_bridge(renderer):
    coefficients = coefficients_of(2, seed=3)
    pull = np.random.default_rng(4).standard_normal((2, SIZE, SIZE, 3))
    with jax.enable_x64(True):
        given = jnp.asarray(coefficients, jnp.float64)
        gradient = np.asarray(jax.jit(jax.grad(lambda c: jnp.sum(renderer(c) * pull)))(given))
        images = np.asarray(renderer(given))
    expected_images, expected = torch_gradient(coefficients, pull)
    # float64 on both sides, of constants that are float32.
    np.testing.assert_allclose(images, expected_images, atol=1e-9)
    np.testing.assert_allclose(gradient, expected, atol=1e-8 * np.abs(expected).max())
    assert (np.abs(expected) > 1e-4 * np.abs(expected).max()).mean() > 0.9
    ours = jax.jit(jax.grad(lambda c: jnp.sum(renderer(c) * jnp.asarray(pull, jnp.float32))))(jnp.asarray(coefficients))
    # float32: sums over pixels and over slivers' large slopes.
    np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("detached", [False, True])
def test_gradients_are_finite_differences_where_each_pixel_keeps_its_triangle(detached):
    renderer = ShapeRenderer(golden_head(), golden_template(), size=SIZE, detached_normals=detached)
    pull = np.random.default_rng(8).standard_normal((1, SIZE, SIZE, 3))
    with jax.enable_x64(True):
        at = jnp.asarray(coefficients_of(1, seed=9), jnp.float64)
        vertices = jax.jit(renderer._ordered_vertices)(at)
        face = jax.jit(lambda some: renderer._seen_faces(renderer._points(some)))(vertices)

        @jax.jit
        def total(coefficients):
            moved = renderer._ordered_vertices(coefficients)
            lit = vertices if detached else moved
            return jnp.sum(renderer._paint(lit, renderer._points(moved), face) * pull)

        gradient = jax.jit(jax.grad(lambda c: jnp.sum(renderer(c) * pull)))(at)[0]
        step = 1e-6
        for column in (0, 1, 2, 17, 50):
            difference = (total(at.at[0, column].add(step)) - total(at.at[0, column].add(-step))) / (2 * step)
            # Central differences of a sum of about 100: rounding of 1e-14 over 1e-6.
            np.testing.assert_allclose(gradient[column], difference, rtol=1e-5, atol=1e-6)


def test_jaw_and_expression_get_other_gradients_without_normals(renderer):
    detached = ShapeRenderer(golden_head(), golden_template(), size=SIZE, detached_normals=True)
    at = jnp.asarray(coefficients_of(1))
    whole, less = (jax.jit(jax.grad(lambda c, draw=draw: jnp.sum(draw(c) ** 2)))(at) for draw in (renderer, detached))
    np.testing.assert_array_equal(renderer(at), detached(at))
    assert jnp.isfinite(whole).all()
    assert jnp.abs(whole - less).max() > 0.1 * jnp.abs(whole).max()
    assert jnp.abs(less).max() > 0


def test_at_rest_every_gradient_is_finite(renderer):
    gradient = jax.jit(jax.grad(lambda c: jnp.sum(renderer(c) ** 2)))(jnp.zeros((1, 51)))
    assert jnp.isfinite(gradient).all()
    assert gradient[0, 0] != 0


def test_triangles_of_the_mouth_are_lit_but_not_drawn():
    head = golden_head()
    whole = ShapeRenderer(head, golden_template(), size=SIZE)
    seen = np.unique(
        jax.jit(lambda c: whole._seen_faces(whole._points(whole._ordered_vertices(c))))(jnp.zeros((1, 51)))
    )
    assert seen[0] == -1
    mouth = np.flatnonzero(np.isin(np.arange(374), seen[1::2])).astype(np.int32)
    less = ShapeRenderer(dataclasses.replace(head, mouth_faces=mouth), golden_template(), size=SIZE)
    pictures = [np.asarray(draw(jnp.zeros((1, 51)))) for draw in (whole, less)]
    assert (pictures[1] > 0).sum() < 0.9 * (pictures[0] > 0).sum()
    assets = dataclasses.replace(golden_assets(), mouth_faces=mouth)
    expected = renders_of(assets, posed_codes(golden_template(), np.zeros((1, 51), np.float32)), SIZE)
    assert_same_pictures(pictures[1], expected.shape, expected.alpha, edge_pixels=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size: 0 pixels"),
        ({"template": posed_codes(golden_template(), coefficients_of(2))}, "2 frames, expected one"),
        (
            {"template": dataclasses.replace(golden_template(), shape=np.zeros((1, 90), np.float32))},
            "90 shape coefficients, this head takes 100",
        ),
    ],
)
def test_templates_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        ShapeRenderer(golden_head(), **{"template": golden_template(), **change})


def test_coefficients_that_do_not_fit_are_refused(renderer):
    with pytest.raises(InputError, match="50 coefficients, expected 51"):
        renderer(jnp.zeros((2, 50)))
