"""Both rasterisers keep the rules, agree with a naive one written from them, and with each other to the last bit."""

import numpy as np
import pytest
import torch

from DECA_torch_bridge.raster import NumbaRasteriser, TorchRasteriser, interpolate
from tests.data_prep.head_fit.golden_head import golden_arrays

BOTH = pytest.mark.parametrize("rasterise", [TorchRasteriser(), NumbaRasteriser()], ids=["torch", "numba"])


def random_mesh(seed, *, vertices=60, faces=90, spread=0.7):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2, vertices, 3, generator=generator) * torch.tensor([spread, spread, 1.0])
    points[..., 2] += 3
    return points, torch.randint(0, vertices, (faces, 3), generator=generator)


def naive(points, faces, height, width):
    """The rules, pixel by pixel and triangle by triangle, in float64."""
    found = np.full((height, width), -1)
    nearest = np.full((height, width), np.inf)
    for f, face in enumerate(faces.tolist()):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[face].double().tolist()
        area = (cx - ax) * (by - ay) - (cy - ay) * (bx - ax)
        if abs(area) <= 1e-8 or min(az, bz, cz) < 1e-8:
            continue
        for r in range(height):
            for c in range(width):
                x, y = -1 + (2 * c + 1) / width, -1 + (2 * r + 1) / height
                wa = ((x - bx) * (cy - by) - (y - by) * (cx - bx)) / area
                wb = ((x - cx) * (ay - cy) - (y - cy) * (ax - cx)) / area
                wc = 1 - wa - wb
                depth = wa * az + wb * bz + wc * cz
                if min(wa, wb, wc) > 0 and 0 <= depth < nearest[r, c]:
                    found[r, c], nearest[r, c] = f, depth
    return found


@BOTH
def test_pixels_are_those_of_a_naive_rasteriser(rasterise):
    points, faces = random_mesh(0, faces=20)
    face = rasterise(points, faces, (14, 9)).face
    assert face.shape == (2, 14, 9)
    for mesh in range(2):
        np.testing.assert_array_equal(face[mesh].numpy(), naive(points[mesh], faces, 14, 9))


@pytest.mark.parametrize("size", [64, 57, (40, 71)])
@pytest.mark.parametrize("seed", [1, 2])
def test_numba_equals_torch_to_the_last_bit(seed, size):
    points, faces = random_mesh(seed)
    for ours, reference in zip(
        NumbaRasteriser()(points, faces, size), TorchRasteriser()(points, faces, size), strict=True
    ):
        assert torch.equal(ours, reference)


@BOTH
def test_golden_pixels_weights_and_depths_are_met_exactly(rasterise):
    golden = golden_arrays()
    points = torch.from_numpy(golden["proj/trans_verts"]).clone()
    points[..., 2] += 10
    found = rasterise(points, torch.from_numpy(golden["model/f"].astype(np.int64)), 64)
    seen = found.face.numpy() >= 0
    np.testing.assert_array_equal(found.face.numpy(), golden["raster/pix_to_face"])
    np.testing.assert_array_equal(found.barycentric.numpy()[seen], golden["raster/bary"][seen])
    np.testing.assert_array_equal(found.depth.numpy()[seen], golden["raster/zbuf"][seen])


@BOTH
def test_of_equal_depths_the_lower_triangle_wins_and_of_others_the_nearest(rasterise):
    square = torch.tensor([[[-2.0, -2, 1], [2, -2, 1], [0, 4, 1], [-2, -2, 0.5], [2, -2, 0.5], [0, 4, 0.5]]])
    twice = torch.tensor([[0, 1, 2], [2, 1, 0], [0, 1, 2]])
    assert (rasterise(square, twice, 4).face == 0).all()
    assert (rasterise(square, torch.tensor([[0, 1, 2], [3, 4, 5]]), 4).face == 1).all()


@BOTH
@pytest.mark.parametrize("fault", [-1.0, 0.0, float("nan"), float("inf")])
def test_triangles_before_the_near_plane_or_not_finite_are_skipped(rasterise, fault):
    points = torch.tensor([[[-2.0, -2, 1], [2, -2, 1], [0, 4, fault]]])
    found = rasterise(points, torch.tensor([[0, 1, 2]]), 4)
    assert (found.face == -1).all()
    assert (found.barycentric == 0).all()
    assert found.depth.isinf().all()


@BOTH
def test_nothing_to_draw_gives_an_empty_picture(rasterise):
    found = rasterise(torch.full((1, 3, 3), 9.0), torch.tensor([[0, 1, 2]]), 4)
    assert (found.face == -1).all()


def test_many_pairs_in_several_goes_give_the_same_pixels(monkeypatch):
    points, faces = random_mesh(3)
    whole = TorchRasteriser()(points, faces, 32)
    monkeypatch.setattr("DECA_torch_bridge.raster._PAIRS_AT_ONCE", 500)
    for part, reference in zip(TorchRasteriser()(points, faces, 32), whole, strict=True):
        assert torch.equal(part, reference)


def test_weights_and_depth_have_the_gradients_of_finite_differences():
    rasterise = TorchRasteriser()
    points = torch.tensor([[[-0.8, -0.7, 1.0], [0.9, -0.6, 2.0], [0.1, 0.8, 1.5]]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2]])
    attributes = torch.tensor([[[1.0], [2.0], [-3.0]]])

    def total(vertices):
        found = rasterise(vertices, faces, 8)
        depth = torch.where(found.face >= 0, found.depth, 0)
        return interpolate(found, faces, attributes).sum() + depth.sum()

    (gradient,) = torch.autograd.grad(total(points), points)
    for corner in range(3):
        for axis in range(3):
            step = torch.zeros_like(points)
            step[0, corner, axis] = 1e-3
            with torch.no_grad():
                difference = (total(points + step) - total(points - step)) / 2e-3
            # Central differences of float32 sums of about 20: an error of 1e-5 over 2e-3.
            np.testing.assert_allclose(gradient[0, corner, axis], difference, atol=2e-2)


def test_interpolation_is_linear_and_zero_where_nothing_is_seen():
    points, faces = random_mesh(4)
    found = TorchRasteriser()(points, faces, 32)
    depth = interpolate(found, faces, points)[..., 2]
    seen = found.face >= 0
    torch.testing.assert_close(depth[seen], found.depth[seen], rtol=1e-6, atol=0)
    assert (depth[~seen] == 0).all()
