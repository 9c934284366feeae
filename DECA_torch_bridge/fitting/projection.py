"""From coefficients to pixels: the landmarks of all frames of a clip and their derivatives by every unknown."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from DECA_torch_bridge.fitting.contour import CONTOUR, support_points
from DECA_torch_bridge.fitting.landmark_head import STATIC, LandmarkHead
from DECA_torch_bridge.fitting.rotations import head_rotations, jaw_rotations, skew

__all__ = ["CAMERA", "EXPRESSION", "JAW", "ROTATION", "SCALE", "TRANSLATION", "Derivatives", "Projection", "project"]

# Columns of a frame's state: log of the scale in px/m, place of the head's centre in px, axis-angle, jaw angle,
# expression coefficients.
SCALE, TRANSLATION, ROTATION, JAW, EXPRESSION = 0, slice(1, 3), slice(3, 6), 6, slice(7, None)
CAMERA = slice(0, 3)

_FLIP = np.array([1.0, -1.0])  # the head's y points up, the picture's down


@dataclasses.dataclass(frozen=True, eq=False)
class Derivatives:
    """Derivatives of the projected landmarks.

    Attributes:
      state: By the state of the same frame.
      identity: By the identity coefficients; None where they were not asked for.
    """

    state: Float[np.ndarray, "t 68 2 d"]
    identity: Float[np.ndarray, "t 68 2 i"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """Landmarks of a clip in pixels.

    Attributes:
      points: Landmarks 0..16 as support points of the outline, inset included; 17..67 as fixed points.
      support: Which candidate each of the landmarks 0..16 is.
    """

    points: Float[np.ndarray, "t 68 2"]
    support: Int[np.ndarray, "t 17"]


class _Pose:
    """What all points of a clip have in common, frame by frame."""

    def __init__(self, head: LandmarkHead, states: Float[np.ndarray, "t d"], shape: Float[np.ndarray, " i"]) -> None:
        self.scale = np.exp(states[:, SCALE])
        self.translation = states[:, TRANSLATION]
        self.expression = states[:, EXPRESSION]
        self.rotation, self.left_jacobian = head_rotations(states[:, ROTATION])
        jaw, self.jaw_slope = jaw_rotations(states[:, JAW])
        self.jaw_bend = jaw - np.eye(3)
        self.jaw_joint = head.joints[1] + head.joint_identity[1] @ shape + self.expression @ head.joint_expression[1].T
        # Rows of the rotation that make x and y of the picture, in pixels.
        self.to_picture = self.rotation[:, :2] * _FLIP[:, None] * self.scale[:, None, None]


def project(
    head: LandmarkHead,
    states: Float[np.ndarray, "t d"],
    shape: Float[np.ndarray, " i"],
    normals: Float[np.ndarray, "t 17 2"],
    *,
    support: Int[np.ndarray, "t 17"] | None = None,
    derivatives: bool = False,
    identity_derivatives: bool = True,
) -> tuple[Projection, Derivatives | None]:
    """Returns the landmarks of each frame and, if asked, their derivatives.

    Args:
      head: The head.
      states: Unknowns of each frame, see the columns above.
      shape: Identity coefficients.
      normals: Outward normals of the measured outline.
      support: Candidates to keep for the outline; None finds the support points anew.
      derivatives: Whether to return derivatives.
      identity_derivatives: Whether those by the identity are among them.
    """
    pose = _Pose(head, states, shape)
    rest = head.points + head.identity @ shape
    static = _Posed(pose, head, rest[:STATIC], slice(0, STATIC))
    if support is None:
        support = support_points(_Posed(pose, head, rest[STATIC:], slice(STATIC, None)).points, normals)
    chosen = STATIC + support
    contour = _Posed(pose, head, rest[chosen], chosen)
    inset = (pose.scale[:, None] * head.insets)[..., None] * normals
    projection = Projection(np.concatenate([contour.points - inset, static.points], axis=1), support)
    if not derivatives:
        return projection, None
    by_state = np.concatenate([contour.by_state(), static.by_state()], axis=1)
    by_state[:, :CONTOUR, :, SCALE] -= inset
    by_identity = None
    if identity_derivatives:
        by_identity = np.concatenate([contour.by_identity(), static.by_identity()], axis=1)
    return projection, Derivatives(by_state, by_identity)


class _Posed:
    """Some points of the head, posed; `rows` are the same for all frames (a slice) or each frame's own."""

    def __init__(self, pose: _Pose, head: LandmarkHead, rest: np.ndarray, rows: slice | Int[np.ndarray, "t k"]) -> None:
        self._pose, self._head, self._rows = pose, head, rows
        self._fields = head.expression[rows]
        if isinstance(rows, slice):
            count, size = self._fields.shape[0], self._fields.shape[-1]
            moved = (pose.expression @ self._fields.reshape(-1, size).T).reshape(-1, count, 3)
        else:
            moved = (self._fields @ pose.expression[:, None, :, None])[..., 0]
        self._correctives = head.jaw_correctives[rows]
        feature = pose.jaw_bend.reshape(-1, 1, 9, 1)
        self._vertices = rest + moved
        if head.jaw_correctives.any():
            self._vertices = self._vertices + (self._correctives @ feature)[..., 0]
        weights = head.jaw_weights[rows]
        self._weights = np.broadcast_to(weights, self._vertices.shape[:2])[..., None]
        self._from_jaw = self._vertices - pose.jaw_joint[:, None]
        bent = self._vertices + self._weights * (self._from_jaw @ pose.jaw_bend.transpose(0, 2, 1))
        self._from_centre = bent - head.centre
        self.points = self._from_centre @ pose.to_picture.transpose(0, 2, 1) + pose.translation[:, None]

    def by_state(self) -> Float[np.ndarray, "t k 2 d"]:
        """Derivatives by the state."""
        pose, head = self._pose, self._head
        frames, count = self._vertices.shape[:2]
        result = np.zeros((frames, count, 2, 7 + head.expression_size))
        result[..., SCALE] = self.points - pose.translation[:, None]
        result[..., 0, 1] = result[..., 1, 2] = 1
        turned = self._from_centre @ pose.rotation.transpose(0, 2, 1)
        along = -skew(turned)[:, :, :2] * _FLIP[:, None] * pose.scale[:, None, None, None]
        result[..., ROTATION] = along @ pose.left_jacobian[:, None]
        opened = self._weights * (self._from_jaw @ pose.jaw_slope.transpose(0, 2, 1))
        if head.jaw_correctives.any():
            slope = (self._correctives @ pose.jaw_slope.reshape(-1, 1, 9, 1))[..., 0]
            opened = opened + slope + self._weights * (slope @ pose.jaw_bend.transpose(0, 2, 1))
        result[..., JAW] = opened @ pose.to_picture.transpose(0, 2, 1)
        result[..., EXPRESSION] = self._by_field(self._fields, head.joint_expression[1])
        return result

    def by_identity(self) -> Float[np.ndarray, "t k 2 i"]:
        """Derivatives by the identity coefficients."""
        return self._by_field(self._head.identity[self._rows], self._head.joint_identity[1])

    def _by_field(self, field: np.ndarray, jaw_joint_field: Float[np.ndarray, "3 c"]) -> np.ndarray:
        """Derivatives by coefficients of a linear field over the points and the jaw joint."""
        pose = self._pose
        through_jaw = self._weights[..., None] * (pose.to_picture @ pose.jaw_bend)[:, None]
        through = pose.to_picture[:, None] + through_jaw
        if isinstance(self._rows, slice):  # one product per landmark instead of one per landmark and frame
            frames, count = through.shape[:2]
            flat = through.transpose(1, 0, 2, 3).reshape(count, frames * 2, 3)
            result = (flat @ field).reshape(count, frames, 2, -1).transpose(1, 0, 2, 3)
        else:
            result = through @ field
        if jaw_joint_field.any():
            result = result - through_jaw @ jaw_joint_field
        return result
