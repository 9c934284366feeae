"""Rotations as axis-angle vectors, matrices, quaternions (w, x, y, z) and Euler angles, batched and differentiable."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "axis_angle_from_euler",
    "axis_angle_from_quaternion",
    "matrix_from_axis_angle",
    "matrix_from_euler",
    "matrix_from_euler_zyx",
    "matrix_from_quaternion",
    "quaternion_from_axis_angle",
    "quaternion_from_euler",
    "quaternion_from_matrix",
    "yaw_of_matrix",
]

_NORM_EPSILON = 1e-8
_BRANCH_EPSILON = 1e-6


def matrix_from_axis_angle(axis_angle: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Returns rotations by Rodrigues' formula, as FLAME evaluates it.

    The angle is the norm of the vector with 1e-8 added to each component, which keeps it and its gradient finite at 0.
    """
    angle = (axis_angle + _NORM_EPSILON).norm(dim=-1, keepdim=True)
    skew = _skew(axis_angle / angle)
    sine, cosine = torch.sin(angle)[..., None], torch.cos(angle)[..., None]
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sine * skew + (1 - cosine) * (skew @ skew)


def quaternion_from_axis_angle(axis_angle: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4"]:
    """Returns unit quaternions; the zero vector gives the identity."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    turned = angle > 0
    divisor = torch.where(turned, angle, 1)
    factor = torch.where(turned, torch.sin(angle / 2) / divisor, 0.5)
    return torch.cat([torch.cos(angle / 2), axis_angle * factor], dim=-1)


def axis_angle_from_quaternion(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3"]:
    """Returns the axis-angle vector of at most half a turn."""
    cosine, vector = quaternion[..., :1], quaternion[..., 1:]
    sine = vector.norm(dim=-1, keepdim=True)
    sign = torch.where(cosine < 0, -1.0, 1.0).to(quaternion.dtype)
    angle = 2 * torch.atan2(sign * sine, sign * cosine)
    turned = sine > 0
    return vector * torch.where(turned, angle / torch.where(turned, sine, 1), 2)


def matrix_from_quaternion(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Returns rotations; quaternions are normalised first."""
    w, x, y, z = torch.unbind(quaternion / quaternion.norm(dim=-1, keepdim=True), dim=-1)
    return _matrix(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )


def quaternion_from_matrix(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Returns unit quaternions by Shepperd's method: divided by a component that is safely large, which is positive."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (torch.unbind(row, -1) for row in torch.unbind(matrix, -2))
    traces = (1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz)
    by_w = torch.stack([traces[0], zy - yz, xz - zx, yx - xy], dim=-1)
    by_x = torch.stack([zy - yz, traces[1], yx + xy, xz + zx], dim=-1)
    by_y = torch.stack([xz - zx, yx + xy, traces[2], zy + yz], dim=-1)
    by_z = torch.stack([yx - xy, xz + zx, zy + yz, traces[3]], dim=-1)
    turned_over = zz < _BRANCH_EPSILON
    chosen = torch.where(turned_over, torch.where(xx > yy, 1, 2), torch.where(xx < -yy, 3, 0))[..., None]
    quaternion = torch.stack([by_w, by_x, by_y, by_z], dim=-2).gather(
        -2, chosen[..., None].expand(*chosen.shape[:-1], 1, 4)
    )[..., 0, :]
    trace = torch.stack(traces, dim=-1).gather(-1, chosen)
    return quaternion / (2 * trace.sqrt())


def quaternion_from_euler(angles: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4"]:
    """Returns the quaternion of Rx(x) Ry(y) Rz(z), angles in radians."""
    (sx, sy, sz), (cx, cy, cz) = (
        torch.unbind(torch.sin(angles / 2), -1),
        torch.unbind(torch.cos(angles / 2), -1),
    )
    return torch.stack(
        [
            cx * cy * cz - sx * sy * sz,
            sx * cy * cz + cx * sy * sz,
            cx * sy * cz - sx * cy * sz,
            cx * cy * sz + sx * sy * cz,
        ],
        dim=-1,
    )


def matrix_from_euler(angles: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Returns Rx(x) Ry(y) Rz(z), angles in radians."""
    return matrix_from_quaternion(quaternion_from_euler(angles))


def axis_angle_from_euler(angles: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Returns the axis-angle vector of Rx(x) Ry(y) Rz(z), angles in radians."""
    return axis_angle_from_quaternion(quaternion_from_euler(angles))


def matrix_from_euler_zyx(angles: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Returns Rz(z) Ry(y) Rx(x), angles x, y, z in radians."""
    (sx, sy, sz), (cx, cy, cz) = torch.unbind(torch.sin(angles), -1), torch.unbind(torch.cos(angles), -1)
    return _matrix(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )


def yaw_of_matrix(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Returns the angle about y, in radians, of Rz Ry Rx."""
    return torch.atan2(-matrix[..., 2, 0], torch.sqrt(matrix[..., 0, 0] ** 2 + matrix[..., 1, 0] ** 2))


def _skew(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    x, y, z = torch.unbind(vector, dim=-1)
    zero = torch.zeros_like(x)
    return _matrix([[zero, -z, y], [z, zero, -x], [-y, x, zero]])


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
