"""The rasteriser keeps the rules, sees what the bridge's sees at any size of triangle, and has its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from asccl_jax.head import raster
from asccl_jax.head.raster import interpolate, nothing_seen, rasterise, seen_faces
from DECA_torch_bridge.raster import TorchRasteriser
from DECA_torch_bridge.raster import interpolate as torch_interpolate
from tests.data_prep.head_fit.golden_head import golden_arrays


def random_mesh(seed, *, vertices=60, faces=90, spread=0.7):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((2, vertices, 3)) * [spread, spread, 1.0]
    points[..., 2] += 3
    return points.astype(np.float32), rng.integers(0, vertices, (faces, 3)).astype(np.int32)


def reference(points, faces, size):
    return TorchRasteriser()(torch.from_numpy(points), torch.from_numpy(faces).long(), size)


def draw(points, faces, size):
    return jax.jit(lambda some: rasterise(some, faces, size))(jnp.asarray(points))


@pytest.mark.parametrize(("size", "spread"), [((64, 64), 0.7), ((40, 71), 0.7), ((33, 20), 3.0), ((64, 64), 0.02)])
def test_pixels_weights_and_depths_are_those_of_the_bridge(size, spread):
    points, faces = random_mesh(1, spread=spread)
    found, expected = draw(points, faces, size), reference(points, faces, size)
    np.testing.assert_array_equal(found.face, expected.face)
    assert len(np.unique(expected.face)) > 5
    # The same formulas, of which the compiler may join a product and a sum: relative to the size of the triangle.
    np.testing.assert_allclose(found.barycentric, expected.barycentric, atol=2e-4 if spread < 0.1 else 1e-5)
    np.testing.assert_allclose(found.depth, expected.depth, rtol=2e-4 if spread < 0.1 else 1e-5)


def test_golden_pixels_weights_and_depths_are_met():
    golden = golden_arrays()
    points = golden["proj/trans_verts"] + np.float32([0, 0, 10])
    found = draw(points, golden["model/f"].astype(np.int32), (64, 64))
    seen = np.asarray(found.face) >= 0
    np.testing.assert_array_equal(found.face, golden["raster/pix_to_face"])
    np.testing.assert_allclose(found.barycentric[seen], golden["raster/bary"][seen], atol=1e-5)
    np.testing.assert_allclose(found.depth[seen], golden["raster/zbuf"][seen], rtol=1e-6)


def test_of_equal_depths_the_lower_triangle_wins_and_of_others_the_nearest():
    square = np.float32([[[-2, -2, 1], [2, -2, 1], [0, 4, 1], [-2, -2, 0.5], [2, -2, 0.5], [0, 4, 0.5]]])
    assert (draw(square, np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]]), (4, 4)).face == 0).all()
    assert (draw(square, np.array([[0, 1, 2], [3, 4, 5]]), (4, 4)).face == 1).all()


@pytest.mark.parametrize("fault", [-1.0, 0.0, float("nan"), float("inf")])
def test_triangles_before_the_near_plane_or_not_finite_are_skipped(fault):
    points = np.float32([[[-2, -2, 1], [2, -2, 1], [0, 4, fault]]])
    found = draw(points, np.array([[0, 1, 2]]), (4, 4))
    assert (found.face == -1).all()
    assert (found.barycentric == 0).all()
    assert jnp.isinf(found.depth).all()


def test_no_triangles_give_an_empty_picture():
    assert (draw(np.ones((1, 3, 3), np.float32), np.zeros((0, 3), np.int32), (4, 4)).face == -1).all()


@pytest.mark.parametrize("at_once", [1, 97])
def test_any_number_of_pairs_at_once_gives_the_same_pixels(monkeypatch, at_once):
    points, faces = random_mesh(3, faces=20)
    expected = reference(points, faces, (16, 16)).face
    monkeypatch.setattr(raster, "_PAIRS_AT_ONCE", at_once)
    np.testing.assert_array_equal(seen_faces(jnp.asarray(points), faces, (16, 16)), expected)


def test_drawing_in_two_goes_is_drawing_at_once():
    points, faces = random_mesh(4)
    points = jnp.asarray(points[:1])
    size = (48, 48)
    first = np.arange(0, 90, 2, dtype=np.int32)
    second = np.arange(1, 90, 2, dtype=np.int32)
    behind = raster.nearest_faces(points[0], faces[first], size, numbers=first, behind=nothing_seen(size))
    both = seen_faces(points, faces[second], size, numbers=second, behind=behind)
    np.testing.assert_array_equal(both, seen_faces(points, faces, size))


def test_more_pairs_than_can_be_counted_make_the_picture_not_a_number():
    points = np.float32([[[-9, -9, 1], [9, -9, 1], [0, 18, 1]]])
    faces = np.tile(np.array([[0, 1, 2]], np.int32), (2100, 1))
    # 2100 triangles times 1024 x 1024 pixels are more than 2^31 pairs.
    face = seen_faces(jnp.asarray(points), faces, (1024, 1024))
    assert (face == face[0, 0, 0]).all()
    weights, depth = raster.barycentric_coordinates(jnp.asarray(points), faces, face[:, :2, :3])
    assert jnp.isnan(weights).all()
    assert jnp.isnan(depth).all()


def test_gradients_are_those_of_the_bridge():
    points, faces = random_mesh(5)
    attributes = np.random.default_rng(6).standard_normal((2, 60, 4)).astype(np.float32)
    pull = np.random.default_rng(7).standard_normal((2, 24, 24, 5)).astype(np.float32)

    def total(some):
        found = rasterise(some, faces, (24, 24))
        depth = jnp.where(found.face >= 0, found.depth, 0)
        values = interpolate(found, faces, jnp.asarray(attributes))
        return jnp.sum(jnp.concatenate([values, depth[..., None]], axis=-1) * pull)

    gradient = jax.jit(jax.grad(total))(jnp.asarray(points))
    leaf = torch.from_numpy(points).requires_grad_()
    found = TorchRasteriser()(leaf, torch.from_numpy(faces).long(), 24)
    values = torch_interpolate(found, torch.from_numpy(faces).long(), torch.from_numpy(attributes))
    depth = torch.where(found.face >= 0, found.depth, 0)
    (torch.cat([values, depth[..., None]], dim=-1) * torch.from_numpy(pull)).sum().backward()
    assert leaf.grad is not None
    # Sums over pixels of slivers, in another order: relative to the largest.
    np.testing.assert_allclose(gradient, leaf.grad, atol=1e-4 * float(leaf.grad.abs().max()))


def test_a_degenerate_first_triangle_poisons_no_gradient():
    points = jnp.asarray(np.float32([[[0, 0, 1], [0, 0, 1], [0, 0, 1], [-0.9, -0.9, 1], [0.9, -0.9, 1], [0, 0.9, 1]]]))
    faces = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    # Pixels that see nothing are numbered 0 where they gather.
    gradient = jax.grad(lambda some: jnp.sum(rasterise(some, faces, (9, 9)).barycentric[..., 0]))(points)
    assert jnp.isfinite(gradient).all()
    assert (gradient[:, :3] == 0).all()
    assert (gradient[:, 3:, :2] != 0).any()
