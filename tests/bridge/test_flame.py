"""The FLAME layer keeps its invariants; its numbers are held by the golden."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from DECA_torch_bridge import flame
from DECA_torch_bridge.flame import Flame
from DECA_torch_bridge.renderer import vertex_normals
from tests.data_prep.head_fit.golden_head import golden_arrays, golden_assets

ZERO = torch.zeros(1, 100), torch.zeros(1, 50), torch.zeros(1, 6)


def test_no_coefficients_give_the_mean_head():
    head = Flame(golden_assets())(*ZERO)
    # The pose formula turns by 1e-8 at rest.
    np.testing.assert_allclose(head.vertices[0], golden_assets().v_template, atol=1e-7)


def test_identity_and_expression_take_the_columns_of_flame():
    flame, assets = Flame(golden_assets()), golden_assets()
    shape, expression, pose = (values.clone() for values in ZERO)
    shape[0, 3], expression[0, 2] = 2, -1
    moved = flame(shape, expression, pose).vertices[0].numpy() - assets.v_template
    np.testing.assert_allclose(moved, 2 * assets.shapedirs[:, :, 3] - assets.shapedirs[:, :, 302], atol=1e-7)


def test_turning_the_head_turns_everything_about_the_root():
    flame = Flame(golden_assets())
    shape, expression, pose = torch.randn(1, 100), torch.randn(1, 50), torch.zeros(1, 6)
    rest = flame(shape, expression, pose)
    pose[0, 1] = torch.pi / 2
    turned = flame(shape, expression, pose)
    root = rest.joints[0, 0]
    x, y, z = torch.unbind(rest.vertices[0] - root, dim=-1)
    # A quarter turn about y takes z to x and x to -z; pose correctives do not see the root. Rounding of metres.
    np.testing.assert_allclose(turned.vertices[0] - root, torch.stack([z, y, -x], -1), atol=1e-6)


@pytest.mark.parametrize(
    ("degrees", "row"),
    [(0, 0), (0.4, 0), (12.6, 13), (38.9, 39), (80, 39), (-1, 40), (-38.9, 78), (-39.4, 78), (-80, 78)],
)
def test_contour_row_follows_the_yaw(degrees, row):
    pose = torch.zeros(1, 6)
    pose[0, 1] = np.radians(degrees)
    assert Flame(golden_assets()).contour_rows(pose).tolist() == [row]


def test_gradients_are_finite_at_rest():
    inputs = [values.clone().requires_grad_() for values in ZERO]
    head = Flame(golden_assets())(*inputs)
    gradients = torch.autograd.grad(head.vertices.square().sum() + head.landmarks2d.sum(), inputs)
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)


def test_layer_has_no_weights_and_other_sizes_work():
    flame = Flame(golden_assets(), shape_size=10, expression_size=100)
    assert not flame.state_dict()
    assert flame(torch.zeros(2, 10), torch.zeros(2, 100), torch.zeros(2, 6)).vertices.shape == (2, 216, 3)


def test_whole_chain_from_coefficients_sees_the_golden_triangles():
    from DECA_torch_bridge.flame import to_image_space
    from DECA_torch_bridge.raster import TorchRasteriser

    golden = golden_arrays()
    shape, expression, pose, cam = (torch.from_numpy(golden[f"in/{name}"]) for name in ("shape", "exp", "pose", "cam"))
    flame = Flame(golden_assets())
    points = to_image_space(flame(shape, expression, pose).vertices, cam)
    points[..., 2] += 10
    face = TorchRasteriser()(points, flame.faces, 64).face.numpy()
    # Rounding of the vertices may move an edge across a pixel's centre, rarely.
    assert (face != golden["raster/pix_to_face"]).sum() <= 2


def test_normals_are_of_unit_length_and_point_outward():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    squares = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    faces = [half for a, b, c, d in squares for half in ([a, b, c], [a, c, d])]
    normals = vertex_normals(torch.from_numpy(corners)[None], torch.tensor(faces))[0]
    np.testing.assert_allclose(normals.norm(dim=-1), 1, atol=1e-6)
    assert ((normals * torch.from_numpy(corners)).sum(-1) > 1).all()


def test_assets_are_not_changed_by_the_layer():
    before = {field.name: getattr(golden_assets(), field.name) for field in dataclasses.fields(golden_assets())}
    copies = {name: value.copy() for name, value in before.items() if isinstance(value, np.ndarray)}
    Flame(golden_assets())._template.add_(1)
    for name, value in copies.items():
        np.testing.assert_array_equal(before[name], value)


RNG = np.random.default_rng(0)
AXES = np.concatenate([RNG.standard_normal((40, 3)), np.zeros((1, 3)), 1e-5 * RNG.standard_normal((3, 3))])
TENSOR = torch.from_numpy(AXES)
# Float64; Rodrigues' formula adds 1e-8 to each component of the norm.
CLOSE = {"atol": 1e-7, "rtol": 0}


def test_matrices_are_scipys():
    expected = Rotation.from_rotvec(AXES).as_matrix()
    np.testing.assert_allclose(flame.matrix_from_axis_angle(TENSOR), expected, **CLOSE)
    quaternion = flame.quaternion_from_axis_angle(TENSOR)
    np.testing.assert_allclose(flame.matrix_from_quaternion(3 * quaternion), expected, **CLOSE)


def test_euler_orders_are_scipys():
    np.testing.assert_allclose(flame.matrix_from_euler(TENSOR), Rotation.from_euler("XYZ", AXES).as_matrix(), **CLOSE)
    zyx = Rotation.from_euler("ZYX", AXES[:, ::-1]).as_matrix()
    np.testing.assert_allclose(flame.matrix_from_euler_zyx(TENSOR), zyx, **CLOSE)
    np.testing.assert_allclose(flame.yaw_of_matrix(flame.matrix_from_euler_zyx(TENSOR * 0.5)), AXES[:, 1] / 2, **CLOSE)
    np.testing.assert_allclose(
        flame.axis_angle_from_euler(TENSOR), Rotation.from_euler("XYZ", AXES).as_rotvec(), **CLOSE
    )


@pytest.mark.parametrize("scale", [1, 3.0])
def test_quaternions_survive_a_way_round_matrices(scale):
    matrix = torch.from_numpy(Rotation.from_rotvec(scale * AXES).as_matrix())
    quaternion = flame.quaternion_from_matrix(matrix)
    np.testing.assert_allclose(quaternion.norm(dim=-1), 1, **CLOSE)
    np.testing.assert_allclose(flame.matrix_from_quaternion(quaternion), matrix, **CLOSE)
    vector = flame.axis_angle_from_quaternion(quaternion)
    np.testing.assert_allclose(vector, Rotation.from_matrix(matrix.numpy()).as_rotvec(), **CLOSE)


def test_gradient_is_finite_at_no_rotation():
    zero = torch.zeros(3, requires_grad=True)
    flame.matrix_from_axis_angle(zero).pow(2).sum().backward()
    assert zero.grad.isfinite().all()
