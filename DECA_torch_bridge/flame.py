"""The FLAME layer: coefficients to a posed head and its 68 landmarks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data_prep.synthetic.head import EXPRESSION_START
from DECA_torch_bridge.head_assets import HeadAssets
from DECA_torch_bridge.rotations import matrix_from_axis_angle, yaw_of_matrix

__all__ = ["Flame", "FlameOutput"]

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
