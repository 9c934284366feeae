"""The FLAME layer: coefficients to a posed head and its 68 landmarks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from asccl_jax.head.drawing_rules import CROP_SIZE
from data_prep.head_fit.head_assets import HeadAssets
from data_prep.synthetic.head import EXPRESSION_START

__all__ = [
    "Flame",
    "FlameOutput",
    "axis_angle_from_euler",
    "axis_angle_from_quaternion",
    "crop_pixels",
    "landmarks_in_image_space",
    "matrix_from_axis_angle",
    "matrix_from_euler",
    "matrix_from_euler_zyx",
    "matrix_from_quaternion",
    "place_in_picture",
    "project",
    "quaternion_from_axis_angle",
    "quaternion_from_euler",
    "quaternion_from_matrix",
    "to_image_space",
    "yaw_of_matrix",
]

# Rotations as axis-angle vectors, matrices, quaternions (w, x, y, z) and Euler angles, batched and differentiable.

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


_LARGEST_YAW = 39
_LAST_ROW = 78


class FlameOutput(NamedTuple):
    """A posed head, in metres.

    Attributes:
      vertices: Mesh, y up, looking along +z.
      landmarks2d: Contour points of the turned head, then the 51 inner ones: what a detector sees in a picture.
      landmarks3d: All 68 at fixed places of the surface.
      joints: Root, neck, jaw, left eye, right eye.
    """

    vertices: Float[Tensor, "b n 3"]
    landmarks2d: Float[Tensor, "b 68 3"]
    landmarks3d: Float[Tensor, "b 68 3"]
    joints: Float[Tensor, "b 5 3"]


class Flame(nn.Module):
    """Shape, expression and pose coefficients to vertices by blend shapes and linear blend skinning.

    Holds constants only: nothing is trained and nothing is in the state dict.

    Args:
      assets: The head.
      shape_size: Identity coefficients; the assets' own number if None.
      expression_size: Expression coefficients; the assets' own number if None.
    """

    faces: Tensor
    _template: Tensor
    _basis: Tensor
    _pose_basis: Tensor
    _joint_regressor: Tensor
    _skinning_weights: Tensor
    _static_faces: Tensor
    _static_weights: Tensor
    _dynamic_faces: Tensor
    _dynamic_weights: Tensor
    _full_faces: Tensor
    _full_weights: Tensor

    def __init__(self, assets: HeadAssets, shape_size: int | None = None, expression_size: int | None = None) -> None:
        super().__init__()
        self.shape_size = assets.shape_size if shape_size is None else shape_size
        self.expression_size = assets.expression_size if expression_size is None else expression_size
        self._parents = [int(parent) for parent in assets.parents]
        identity = assets.shapedirs[:, :, : self.shape_size]
        expression = assets.shapedirs[:, :, EXPRESSION_START : EXPRESSION_START + self.expression_size]
        basis = np.concatenate([identity, expression], axis=2)
        constants = {
            "_template": assets.v_template,
            "_basis": basis.transpose(2, 0, 1),
            "_pose_basis": assets.posedirs.transpose(2, 0, 1),
            "_joint_regressor": assets.joint_regressor,
            "_skinning_weights": assets.skinning_weights,
            "_static_weights": assets.static_landmark_weights,
            "_dynamic_weights": assets.dynamic_landmark_weights,
            "_full_weights": assets.full_landmark_weights,
        }
        indices = {
            "faces": assets.faces,
            "_static_faces": assets.static_landmark_faces,
            "_dynamic_faces": assets.dynamic_landmark_faces,
            "_full_faces": assets.full_landmark_faces,
        }
        for name, array in constants.items():
            self.register_buffer(name, torch.from_numpy(np.array(array, np.float32)), persistent=False)
        for name, array in indices.items():
            self.register_buffer(name, torch.from_numpy(np.array(array, np.int64)), persistent=False)

    def forward(
        self,
        shape: Float[Tensor, "b s"],
        expression: Float[Tensor, "b e"],
        pose: Float[Tensor, "b 6"],
        *,
        eye_pose: Float[Tensor, "b 6"] | None = None,
        neck_pose: Float[Tensor, "b 3"] | None = None,
    ) -> FlameOutput:
        """Returns posed vertices and landmarks.

        Args:
          shape: Identity coefficients, in standard deviations.
          expression: Expression coefficients, in standard deviations.
          pose: Axis-angle rotations, radians: of the head as a whole, then of the jaw.
          eye_pose: Axis-angle rotations of left and right eye; at rest if None.
          neck_pose: Axis-angle rotation at the neck; at rest if None.
        """
        rotations = self._rotations(pose, eye_pose, neck_pose)
        batch = len(pose)
        coefficients = torch.cat([shape, expression], dim=1)
        shaped = self._template + (coefficients @ self._basis.flatten(1)).view(batch, -1, 3)
        joints = self._joint_regressor @ shaped
        identity = torch.eye(3, dtype=pose.dtype, device=pose.device)
        feature = (rotations[:, 1:] - identity).flatten(1)
        corrected = shaped + (feature @ self._pose_basis.flatten(1)).view(batch, -1, 3)
        turns, places = self._chain(rotations, joints)
        vertices = self._skin(corrected, turns, places - (turns @ joints[..., None])[..., 0])
        return FlameOutput(vertices, *self._landmarks(vertices, rotations), places)

    def contour_rows(
        self, pose: Float[Tensor, "b 6"], *, neck_pose: Float[Tensor, "b 3"] | None = None
    ) -> Int[Tensor, "b"]:
        """Returns the row of the dynamic landmark embedding that belongs to each head's yaw."""
        return self._contour_rows(self._rotations(pose, None, neck_pose))

    def _rotations(self, pose: Tensor, eye_pose: Tensor | None, neck_pose: Tensor | None) -> Tensor:
        neck = pose.new_zeros(len(pose), 3) if neck_pose is None else neck_pose
        eyes = pose.new_zeros(len(pose), 6) if eye_pose is None else eye_pose
        full_pose = torch.cat([pose[:, :3], neck, pose[:, 3:], eyes], dim=1)
        return matrix_from_axis_angle(full_pose.view(len(pose), 5, 3))

    def _chain(self, rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Turns and places of the posed joints, each relative to the world."""
        turns, places = [rotations[:, 0]], [joints[:, 0]]
        for joint, parent in enumerate(self._parents[1:], start=1):
            offset = (joints[:, joint] - joints[:, parent])[..., None]
            turns.append(turns[parent] @ rotations[:, joint])
            places.append((turns[parent] @ offset)[..., 0] + places[parent])
        return torch.stack(turns, dim=1), torch.stack(places, dim=1)

    def _skin(self, vertices: Tensor, turns: Tensor, shifts: Tensor) -> Tensor:
        transforms = torch.cat([turns, shifts[..., None]], dim=-1).flatten(2)
        blended = (self._skinning_weights @ transforms).view(*vertices.shape[:2], 3, 4)
        return (blended[..., :3] @ vertices[..., None])[..., 0] + blended[..., 3]

    def _landmarks(self, vertices: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(vertices)
        rows = self._contour_rows(rotations)
        faces = torch.cat([self._dynamic_faces[rows], self._static_faces.expand(batch, -1)], dim=1)
        weights = torch.cat([self._dynamic_weights[rows], self._static_weights.expand(batch, -1, -1)], dim=1)
        full_faces = self._full_faces.expand(batch, -1)
        full_weights = self._full_weights.expand(batch, -1, -1)
        return self._points(vertices, faces, weights), self._points(vertices, full_faces, full_weights)

    @torch.no_grad()
    def _contour_rows(self, rotations: Tensor) -> Tensor:
        # Upstream: FLAME.py takes the yaw with this sign, lbs.py with the other; the embedding was made for this one.
        degrees = torch.rad2deg(yaw_of_matrix(rotations[:, 0] @ rotations[:, 1]))
        step = torch.round(degrees.clamp(max=_LARGEST_YAW)).long()
        turned_back = torch.where(step < -_LARGEST_YAW, torch.full_like(step, _LAST_ROW), _LARGEST_YAW - step)
        return torch.where(step >= 0, step, turned_back)

    def _points(self, vertices: Tensor, faces: Tensor, weights: Tensor) -> Tensor:
        corners = self.faces[faces].flatten(1)
        taken = vertices.gather(1, corners[..., None].expand(-1, -1, 3)).view(*faces.shape, 3, 3)
        return (weights[..., None] * taken).sum(dim=2)


# DECA's weak-perspective camera: from metres to the crop's plane, and from there to pixels of any picture.
#
# Image space: x right, y down, both -1..1 across the 224-pixel crop; z away from the camera, smaller is nearer.
# Pixel positions of pictures count from the middle of the first pixel, so that the crop's left border is at -0.5.


def project(points: Float[Tensor, "b n 3"], camera: Float[Tensor, "b 3"]) -> Float[Tensor, "b n 3"]:
    """Returns points moved by (tx, ty) and scaled, y still up.

    Args:
      points: Metres, y up, z towards the camera.
      camera: Scale, tx, ty: the published `cam`.
    """
    shifted = torch.cat([points[..., :2] + camera[:, None, 1:], points[..., 2:]], dim=-1)
    return camera[:, None, :1] * shifted


def to_image_space(points: Float[Tensor, "b n 3"], camera: Float[Tensor, "b 3"]) -> Float[Tensor, "b n 3"]:
    """Returns points in image space (the published `trans_verts`)."""
    projected = project(points, camera)
    return torch.cat([projected[..., :1], -projected[..., 1:]], dim=-1)


def landmarks_in_image_space(points: Float[Tensor, "b l 3"], camera: Float[Tensor, "b 3"]) -> Float[Tensor, "b l 2"]:
    """Returns x and y of landmarks in image space."""
    return to_image_space(points, camera)[..., :2]


def crop_pixels(points: Float[Tensor, "... c"], crop_size: int = CROP_SIZE) -> Float[Tensor, "... 2"]:
    """Returns pixel positions in the crop of points in image space."""
    return (points[..., :2] + 1) * (crop_size / 2) - 0.5


def place_in_picture(
    points: Float[Tensor, "b n 3"],
    placement: Float[Tensor, "b 2 3"],
    size: tuple[int, int],
    *,
    crop_size: int = CROP_SIZE,
) -> Float[Tensor, "b n 3"]:
    """Returns points with x and y -1..1 across a picture instead of the crop; z is scaled along.

    Drawing there is what warping the crop's drawing aims at, without its blur.

    Args:
      points: Image space of the crop.
      placement: Maps pixel positions of the crop to pixel positions of the picture (a similarity).
      size: Height and width of the picture.
      crop_size: Side of the crop in pixels.
    """
    pixels = crop_pixels(points, crop_size)
    placed = pixels @ placement[:, :, :2].transpose(1, 2) + placement[:, None, :, 2]
    height, width = size
    half = placed.new_tensor([width / 2, height / 2])
    depth = points[..., 2:] * torch.linalg.vector_norm(placement[:, None, :1, 0:2], dim=-1)
    return torch.cat([(placed + 0.5) / half - 1, depth], dim=-1)
