"""The FLAME layer: coefficients to a posed head and its 68 landmarks, by blend shapes and linear blend skinning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from asccl_jax.head.drawing_rules import CROP_SIZE
from asccl_jax.head.head_model import JOINTS, HeadModel
from asccl_jax.norms import safe_norm

__all__ = [
    "PosedHead",
    "contour_rows",
    "crop_pixels",
    "joint_motions",
    "joint_rotations",
    "landmarks_in_image_space",
    "matrix_from_axis_angle",
    "pose_feature",
    "posed_head",
    "project",
    "skin",
    "to_image_space",
    "yaw_of_matrix",
]

# Rotations as FLAME takes them: axis-angle vectors to matrices, and the yaw of a matrix.

_NORM_EPSILON = 1e-8


def matrix_from_axis_angle(axis_angle: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Returns rotations by Rodrigues' formula, as FLAME evaluates it.

    The angle is the norm of the vector with 1e-8 added to each component: finite, with its gradient, at the zero
    vector. At -1e-8 in each component, where the formula divides by zero, this is the identity.
    """
    norm = safe_norm(axis_angle + _NORM_EPSILON)
    x, y, z = (part[..., 0] for part in jnp.split(axis_angle / jnp.where(norm == 0, jnp.ones_like(norm), norm), 3, -1))
    zero = jnp.zeros_like(x)
    skew = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    sine, cosine = jnp.sin(norm)[..., None], jnp.cos(norm)[..., None]
    # Products of 3 x 3 matrices, written out: accelerators would round the factors of a matrix product.
    squared = jnp.sum(skew[..., :, :, None] * skew[..., None, :, :], axis=-2)
    identity = jnp.broadcast_to(jnp.eye(3, dtype=skew.dtype), skew.shape)
    return identity + sine * skew + (1 - cosine) * squared


def yaw_of_matrix(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
    """Returns the angle about y, in radians, of Rz Ry Rx."""
    return jnp.arctan2(-matrix[..., 2, 0], jnp.hypot(matrix[..., 0, 0], matrix[..., 1, 0]))


_LARGEST_YAW = 39
_LAST_ROW = 78

# Accelerators would round the factors of products otherwise, and move vertices by a tenth of a millimetre.
_EXACT = jax.lax.Precision.HIGHEST


class PosedHead(NamedTuple):
    """A posed head, in metres.

    Attributes:
      vertices: Mesh, y up, looking along +z.
      landmarks2d: Contour points of the turned head, then the 51 inner ones: what a detector sees in a picture.
      landmarks3d: All 68 at fixed places of the surface.
      joints: Root, neck, jaw, left eye, right eye.
    """

    vertices: Float[Array, "b n 3"]
    landmarks2d: Float[Array, "b 68 3"]
    landmarks3d: Float[Array, "b 68 3"]
    joints: Float[Array, "b 5 3"]


def posed_head(
    head: HeadModel,
    shape: Float[Array, "b s"],
    expression: Float[Array, "b e"],
    pose: Float[Array, "b 6"],
    *,
    eye_pose: Float[Array, "b 6"] | None = None,
    neck_pose: Float[Array, "b 3"] | None = None,
) -> PosedHead:
    """Returns posed vertices and landmarks, differentiable, in the precision of the pose.

    Args:
      head: The head.
      shape: Identity coefficients, in standard deviations; as many as the head has.
      expression: Expression coefficients, in standard deviations; as many as the head has.
      pose: Axis-angle rotations, radians: of the head as a whole, then of the jaw.
      eye_pose: Axis-angle rotations of left and right eye; at rest if None.
      neck_pose: Axis-angle rotation at the neck; at rest if None.
    """

    def constant(values: np.ndarray) -> Array:
        return jnp.asarray(values.astype(pose.dtype))

    rotations = joint_rotations(pose, eye_pose=eye_pose, neck_pose=neck_pose)
    basis = constant(np.concatenate([head.identity_basis, head.expression_basis], axis=2))
    coefficients = jnp.concatenate([shape, expression], axis=1)
    shaped = constant(head.v_template)[None] + jnp.einsum("bk,nck->bnc", coefficients, basis, precision=_EXACT)
    joints = jnp.einsum("jn,bnc->bjc", constant(head.joint_regressor), shaped, precision=_EXACT)
    # The built-in head has none. The CPU compiler of jaxlib 0.10.2 makes a product with a constant of nothing but zeros
    # from memory that was never written.
    if head.pose_basis.any():
        corrections = constant(head.pose_basis)
        shaped = shaped + jnp.einsum("bk,nck->bnc", pose_feature(rotations), corrections, precision=_EXACT)
    turns, places = joint_motions(head.parents.tolist(), rotations, joints)
    vertices = skin(shaped, constant(head.skinning_weights), turns, places, joints)
    rows = contour_rows(rotations)
    inner = len(vertices), *head.static_landmark_faces.shape
    faces = jnp.concatenate(
        [jnp.asarray(head.dynamic_landmark_faces)[rows], jnp.broadcast_to(head.static_landmark_faces, inner)], axis=1
    )
    weights = jnp.concatenate(
        [
            constant(head.dynamic_landmark_weights)[rows],
            jnp.broadcast_to(constant(head.static_landmark_weights), (*inner, 3)),
        ],
        axis=1,
    )
    corners = jnp.asarray(head.faces)
    full = jnp.broadcast_to(head.full_landmark_faces, (len(vertices), 68))
    full_weights = jnp.broadcast_to(constant(head.full_landmark_weights), (len(vertices), 68, 3))
    return PosedHead(
        vertices, _points(vertices, corners[faces], weights), _points(vertices, corners[full], full_weights), places
    )


def joint_rotations(
    pose: Float[Array, "b 6"],
    *,
    eye_pose: Float[Array, "b 6"] | None = None,
    neck_pose: Float[Array, "b 3"] | None = None,
) -> Float[Array, "b 5 3 3"]:
    """Returns the rotations of the joints, each relative to its parent; arguments as `posed_head`."""
    neck = jnp.zeros_like(pose[:, :3]) if neck_pose is None else neck_pose
    eyes = jnp.zeros_like(pose) if eye_pose is None else eye_pose
    full_pose = jnp.concatenate([pose[:, :3], neck, pose[:, 3:], eyes], axis=1)
    return matrix_from_axis_angle(full_pose.reshape(len(pose), JOINTS, 3))


def pose_feature(rotations: Float[Array, "b 5 3 3"]) -> Float[Array, "b 36"]:
    """Returns how far the joints but the root are turned, as the pose blend shapes take it."""
    turned = rotations[:, 1:]
    identity = jnp.broadcast_to(jnp.eye(3, dtype=turned.dtype), turned.shape)
    return (turned - identity).reshape(len(turned), -1)


def joint_motions(
    parents: Sequence[int], rotations: Float[Array, "b 5 3 3"], joints: Float[Array, "b 5 3"]
) -> tuple[Float[Array, "b 5 3 3"], Float[Array, "b 5 3"]]:
    """Returns turns and places of the posed joints, both relative to the world.

    Args:
      parents: Parent of each joint, -1 for the root.
      rotations: Of the joints, relative to their parents.
      joints: Places of the joints at rest.
    """
    turns, places = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        turns.append(_product(turns[parent], rotations[:, joint]))
        places.append(_turned(turns[parent], joints[:, joint] - joints[:, parent]) + places[parent])
    return jnp.stack(turns, axis=1), jnp.stack(places, axis=1)


def skin(
    vertices: Float[Array, "b n 3"],
    weights: Float[Array, "n 5"],
    turns: Float[Array, "b 5 3 3"],
    places: Float[Array, "b 5 3"],
    joints: Float[Array, "b 5 3"],
) -> Float[Array, "b n 3"]:
    """Returns vertices moved by the joints, each by the weighted mean of the joints' motions.

    Args:
      vertices: Shaped and corrected, at rest.
      weights: Share of each joint in each vertex.
      turns: Of the posed joints.
      places: Of the posed joints.
      joints: Places of the joints at rest.
    """
    shifts = places - _turned(turns, joints)
    motions = jnp.concatenate([turns, shifts[..., None]], axis=-1).reshape(len(turns), JOINTS, 12)
    blended = jnp.einsum("nj,bjk->bnk", weights, motions, precision=_EXACT).reshape(*vertices.shape[:2], 3, 4)
    return jnp.sum(blended[..., :3] * vertices[:, :, None, :], axis=-1) + blended[..., 3]


def contour_rows(rotations: Float[Array, "b 5 3 3"]) -> Int[Array, " b"]:
    """Returns the row of the dynamic landmark embedding that belongs to each head's yaw; has no gradient."""
    # Upstream: FLAME.py takes the yaw with this sign, lbs.py with the other; the embedding was made for this one.
    turned = jax.lax.stop_gradient(_product(rotations[:, 0], rotations[:, 1]))
    step = jnp.round(jnp.minimum(jnp.rad2deg(yaw_of_matrix(turned)), _LARGEST_YAW)).astype(jnp.int32)
    turned_back = jnp.where(step < -_LARGEST_YAW, _LAST_ROW, _LARGEST_YAW - step)
    return jnp.where(step >= 0, step, turned_back)


def _product(left: Float[Array, "*b 3 3"], right: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
    return jnp.sum(left[..., :, :, None] * right[..., None, :, :], axis=-2)


def _turned(turns: Float[Array, "*b 3 3"], points: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    return jnp.sum(turns * points[..., None, :], axis=-1)


def _points(
    vertices: Float[Array, "b n 3"], corners: Int[Array, "b l 3"], weights: Float[Array, "b l 3"]
) -> Float[Array, "b l 3"]:
    taken = jax.vmap(lambda mesh, some: mesh[some])(vertices, corners)
    return jnp.sum(weights[..., None] * taken, axis=2)


# DECA's weak-perspective camera: from metres to the plane of the crop it looks at.
#
# Image space: x right, y down, both -1..1 across the crop; z away from the camera, smaller is nearer. Pixel positions
# count from the middle of the first pixel, so that the crop's left border is at -0.5.


def project(points: Float[Array, "b n 3"], camera: Float[Array, "b 3"]) -> Float[Array, "b n 3"]:
    """Returns points moved by (tx, ty) and scaled, y still up.

    Args:
      points: Metres, y up, z towards the camera.
      camera: Scale, tx, ty: the published `cam`.
    """
    shift = jnp.concatenate([camera[:, 1:], jnp.zeros_like(camera[:, :1])], axis=1)
    return camera[:, None, :1] * (points + shift[:, None])


def to_image_space(points: Float[Array, "b n 3"], camera: Float[Array, "b 3"]) -> Float[Array, "b n 3"]:
    """Returns points in image space (the published `trans_verts`)."""
    projected = project(points, camera)
    return jnp.concatenate([projected[..., :1], -projected[..., 1:]], axis=-1)


def landmarks_in_image_space(points: Float[Array, "b l 3"], camera: Float[Array, "b 3"]) -> Float[Array, "b l 2"]:
    """Returns x and y of landmarks in image space."""
    return to_image_space(points, camera)[..., :2]


def crop_pixels(points: Float[Array, "*b c"], *, crop_size: int = CROP_SIZE) -> Float[Array, "*b 2"]:
    """Returns pixel positions, in a crop of this side, of points in image space."""
    return (points[..., :2] + 1) * (crop_size / 2) - 0.5
