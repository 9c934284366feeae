"""Conversions agree with SciPy and with one another, also near no rotation and beyond half a turn."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from DECA_torch_bridge import rotations

RNG = np.random.default_rng(0)
AXES = np.concatenate([RNG.standard_normal((40, 3)), np.zeros((1, 3)), 1e-5 * RNG.standard_normal((3, 3))])
TENSOR = torch.from_numpy(AXES)
# Float64; Rodrigues' formula adds 1e-8 to each component of the norm.
CLOSE = {"atol": 1e-7, "rtol": 0}


def test_matrices_are_scipys():
    expected = Rotation.from_rotvec(AXES).as_matrix()
    np.testing.assert_allclose(rotations.matrix_from_axis_angle(TENSOR), expected, **CLOSE)
    quaternion = rotations.quaternion_from_axis_angle(TENSOR)
    np.testing.assert_allclose(rotations.matrix_from_quaternion(3 * quaternion), expected, **CLOSE)


def test_euler_orders_are_scipys():
    np.testing.assert_allclose(
        rotations.matrix_from_euler(TENSOR), Rotation.from_euler("XYZ", AXES).as_matrix(), **CLOSE
    )
    zyx = Rotation.from_euler("ZYX", AXES[:, ::-1]).as_matrix()
    np.testing.assert_allclose(rotations.matrix_from_euler_zyx(TENSOR), zyx, **CLOSE)
    np.testing.assert_allclose(
        rotations.yaw_of_matrix(rotations.matrix_from_euler_zyx(TENSOR * 0.5)), AXES[:, 1] / 2, **CLOSE
    )
    np.testing.assert_allclose(
        rotations.axis_angle_from_euler(TENSOR), Rotation.from_euler("XYZ", AXES).as_rotvec(), **CLOSE
    )


@pytest.mark.parametrize("scale", [1, 3.0])
def test_quaternions_survive_a_way_round_matrices(scale):
    matrix = torch.from_numpy(Rotation.from_rotvec(scale * AXES).as_matrix())
    quaternion = rotations.quaternion_from_matrix(matrix)
    np.testing.assert_allclose(quaternion.norm(dim=-1), 1, **CLOSE)
    np.testing.assert_allclose(rotations.matrix_from_quaternion(quaternion), matrix, **CLOSE)
    vector = rotations.axis_angle_from_quaternion(quaternion)
    np.testing.assert_allclose(vector, Rotation.from_matrix(matrix.numpy()).as_rotvec(), **CLOSE)


def test_gradient_is_finite_at_no_rotation():
    zero = torch.zeros(3, requires_grad=True)
    rotations.matrix_from_axis_angle(zero).pow(2).sum().backward()
    assert zero.grad.isfinite().all()
