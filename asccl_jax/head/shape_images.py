"""Shape images of facial coefficients: the grey head that the metric compares, drawn with gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head import raster
from asccl_jax.head.drawing_rules import CROP_SIZE, DEPTH_OFFSET, NORMAL_LIMIT, SHAPE_GREY
from asccl_jax.head.flame import (
    contour_rows,
    crop_pixels,
    joint_motions,
    joint_rotations,
    pose_feature,
    skin,
    to_image_space,
)
from asccl_jax.head.head_model import HeadModel
from asccl_jax.head.raster import lamp_shading, normal_sums, normals_from_sums

__all__ = ["ShapeRenderer"]

_JAW = 2
_JAW_FEATURE = slice(9 * (_JAW - 1), 9 * _JAW)
_EXACT = jax.lax.Precision.HIGHEST

# Fields of `ShapeRenderer` that programs are compiled for; all others are arrays, leaves of the pytree.
_FIXED = ("size", "expression_size", "_detached_normals", "_parents", "_corrects", "_lit")


@jax.tree_util.register_pytree_node_class
class ShapeRenderer:
    """Draws one person's head with any jaw opening and expression, as the DECA bridge's renderer does.

    Identity, pose of the head, other rotations of the jaw and camera are the template's, and whatever follows from them
    alone is computed once: of the built-in head, a third of the vertices and triangles never move. Gradients reach the
    coefficients through the vertex normals and through the barycentric coordinates of what each pixel sees, not
    through which pixels the head covers.

    A pytree, so that programs take its arrays as arguments rather than hold a head each; make it outside of them.

    Args:
      head: The head.
      template: Code dict of one frame; its expression and its jaw opening are not used.
      size: Side of the pictures in pixels; they show what the template's camera looks at.
      detached_normals: Leave out the gradient through the normals, as upstream's drawing of wrinkled heads does.

    Raises:
      InputError: The template has several frames, or coefficients that do not fit the head.
    """

    def __init__(self, head: HeadModel, template: CodeDict, *, size: int = 112, detached_normals: bool = False) -> None:
        _check(head, template, size)
        self.size = size
        self.expression_size = head.expression_size
        self._detached_normals = detached_normals
        self._parents = tuple(head.parents.tolist())
        # Constants are in float64 and rounded once, to the precision of the coefficients.
        self._pose, self._camera, shape = (
            values.astype(np.float64) for values in (template.pose, template.cam, template.shape[0])
        )
        shaped = head.v_template + head.identity_basis.astype(np.float64) @ shape
        self._joints = head.joint_regressor @ shaped
        self._joint_basis = np.einsum("jn,nce->ejc", head.joint_regressor, head.expression_basis.astype(np.float64))
        moving = self._moving_vertices(head)
        moves = moving[head.faces].any(axis=1)
        beside = np.zeros_like(moving)
        beside[head.faces[moves]] = True
        # Vertices in a new order: those that move, those whose normals change beside them, the rest.
        order = np.argsort(np.where(moving, 0, np.where(beside, 1, 2)), kind="stable")
        self._places = np.argsort(order).astype(np.int32)
        self._lit = int((moving | beside).sum())
        moved = order[: int(moving.sum())]
        self._shaped = shaped[moved]
        self._basis = head.expression_basis[moved].astype(np.float64).transpose(2, 0, 1)
        self._jaw_basis = head.pose_basis[moved][..., _JAW_FEATURE].astype(np.float64).transpose(2, 0, 1)
        # The built-in head has none. The CPU compiler of jaxlib 0.10.2 makes a product with nothing but zeros from
        # memory that was never written.
        self._corrects = bool(self._jaw_basis.any())
        self._skinning_weights = head.skinning_weights[moved].astype(np.float64)
        faces = self._places[head.faces]
        drawn = np.setdiff1d(np.arange(len(faces)), head.mouth_faces)
        self._drawn_faces = faces[drawn]
        self._moving_faces = faces[moves]
        self._moving_numbers = np.flatnonzero(moves[drawn]).astype(np.int32)
        self._landmark_corners, self._landmark_weights = self._contour_and_inner_landmarks(head)
        still = order, faces[~moves], np.flatnonzero(~moves[drawn]).astype(np.int32)
        self._still, self._still_sums, self._behind = self._draw_still(head, shaped, len(moved), *still)

    def __call__(self, coefficients: Float[Array, "n c"]) -> Float[Array, "n h w 3"]:
        """Returns shape images, 0..1, black where nothing is drawn.

        Where a head is too large in the picture to be drawn at all, all of its picture is not a number.

        Args:
          coefficients: Jaw opening in radians, then expression.

        Raises:
          InputError: The head takes another number of coefficients.
        """
        return _draw(self, coefficients)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], tuple[Any, ...]]]:
        """Returns the arrays, and their names with what programs are compiled for."""
        names = tuple(name for name in vars(self) if name not in _FIXED)
        return tuple(getattr(self, name) for name in names), (names, tuple(getattr(self, name) for name in _FIXED))

    @classmethod
    def tree_unflatten(cls, fixed: tuple[tuple[str, ...], tuple[Any, ...]], arrays: tuple[Any, ...]) -> ShapeRenderer:
        """Returns a renderer with other arrays in the places of one's own."""
        renderer = object.__new__(cls)
        names, values = fixed
        vars(renderer).update(zip(names, arrays, strict=True))
        vars(renderer).update(zip(_FIXED, values, strict=True))
        return renderer

    def vertices(self, coefficients: Float[Array, "n c"]) -> Float[Array, "n v 3"]:
        """Returns the heads' vertices in metres, posed as the template is; arguments as calling."""
        return self._ordered_vertices(coefficients)[:, self._places]

    def landmarks(self, coefficients: Float[Array, "n c"]) -> Float[Array, "n 68 2"]:
        """Returns what a detector finds in the heads' pictures, x and y in pixels; arguments as calling."""
        corners = self._ordered_vertices(coefficients)[:, self._landmark_corners]
        weights = jnp.asarray(self._landmark_weights.astype(corners.dtype))
        points = jnp.sum(corners * weights[None, ..., None], axis=-2)
        return crop_pixels(to_image_space(points, self._cameras(points)), crop_size=self.size)

    def _contour_and_inner_landmarks(
        self, head: HeadModel
    ) -> tuple[Int[np.ndarray, "68 3"], Float[np.ndarray, "68 3"]]:
        """Corners of the triangles that have the landmarks, in this renderer's order, and the places in them."""
        # Only the template turns the head, on which the contour depends.
        row = int(contour_rows(joint_rotations(jnp.asarray(self._pose, jnp.float32)))[0])
        faces = np.concatenate([head.dynamic_landmark_faces[row], head.static_landmark_faces])
        weights = np.concatenate([head.dynamic_landmark_weights[row], head.static_landmark_weights])
        return self._places[head.faces[faces]], weights.astype(np.float64)

    def _moving_vertices(self, head: HeadModel) -> np.ndarray:
        """Whether each vertex is elsewhere for some coefficients."""
        moving_joint = np.abs(self._joint_basis).max(axis=(0, 2)) > 0
        for joint, parent in enumerate(self._parents):
            moving_joint[joint] |= joint == _JAW or (parent >= 0 and moving_joint[parent])
        by_expression = np.abs(head.expression_basis).max(axis=(1, 2)) > 0
        by_jaw = np.abs(head.pose_basis[..., _JAW_FEATURE]).max(axis=(1, 2)) > 0
        return by_expression | by_jaw | (head.skinning_weights[:, moving_joint] != 0).any(axis=1)

    def _draw_still(
        self,
        head: HeadModel,
        shaped: Float[np.ndarray, "v 3"],
        moved: int,
        order: Int[np.ndarray, " v"],
        faces: Int[np.ndarray, "f 3"],
        numbers: Int32[np.ndarray, " g"],
    ) -> tuple[np.ndarray, np.ndarray, raster.Nearest]:
        """Returns the vertices that never move, what faces that never move add to normals, and what pixels see of them.

        Args:
          head: The head.
          shaped: All vertices at rest, in the head's order.
          moved: How many vertices move.
          order: Vertices in this renderer's order.
          faces: Triangles that never move, in this renderer's order.
          numbers: Which of the drawn triangles those are.
        """

        @jax.jit
        def draw(shaped: Array, joints: Array, basis: Array, weights: Array, pose: Array) -> tuple[Array, ...]:
            rotations = joint_rotations(pose)
            corrected = shaped + _sum(None, pose_feature(rotations), basis)
            turns, places = joint_motions(self._parents, rotations, joints)
            whole = skin(corrected, weights, turns, places, joints)
            found = raster.nearest_faces(
                self._points(whole)[0].astype(jnp.float32),
                self._drawn_faces[numbers],
                (self.size, self.size),
                numbers=numbers,
                behind=raster.nothing_seen((self.size, self.size)),
            )
            return whole[:, moved:], normal_sums(whole, faces, len(order)), *found

        basis = head.pose_basis[order].astype(np.float64).transpose(2, 0, 1)
        weights = head.skinning_weights[order].astype(np.float64)
        with jax.enable_x64(True):
            drawn = draw(shaped[order][None], self._joints[None], basis, weights, self._pose)
        vertices, sums, depth, face = drawn
        return np.asarray(vertices), np.asarray(sums), raster.Nearest(depth, face)

    def _ordered_vertices(self, coefficients: Float[Array, "n c"]) -> Float[Array, "n v 3"]:
        count, width = coefficients.shape
        if width != 1 + self.expression_size:
            raise InputError(f"shape images: {width} coefficients, expected {1 + self.expression_size} of this head")
        kind = coefficients.dtype
        jaw_opening, expression = coefficients[:, :1], coefficients[:, 1:]
        pose = jnp.broadcast_to(jnp.asarray(self._pose.astype(kind)), (count, 6))
        rotations = joint_rotations(jnp.concatenate([pose[:, :3], jaw_opening, pose[:, 4:]], axis=1))
        shaped = _sum(self._shaped, expression, self._basis)
        # The other joints are at rest: their pose feature is zero.
        if self._corrects:
            shaped = shaped + _sum(None, pose_feature(rotations)[:, _JAW_FEATURE], self._jaw_basis)
        joints = _sum(self._joints, expression, self._joint_basis)
        turns, places = joint_motions(self._parents, rotations, joints)
        moved = skin(shaped, jnp.asarray(self._skinning_weights.astype(kind)), turns, places, joints)
        still = jnp.broadcast_to(jnp.asarray(self._still.astype(kind)), (count, *self._still.shape[1:]))
        return jnp.concatenate([moved, still], axis=1)

    def _images(self, coefficients: Float[Array, "n c"]) -> Float[Array, "n h w 3"]:
        vertices = self._ordered_vertices(coefficients)
        points = self._points(vertices)
        return self._paint(vertices, points, self._seen_faces(points))

    def _points(self, vertices: Float[Array, "n v 3"]) -> Float[Array, "n v 3"]:
        points = to_image_space(vertices, self._cameras(vertices))
        # Depth grows with the picture, as in the bridge's views. Weights of small triangles add up to less than 1, and
        # with the offset that moves them forward: which of two close surfaces is seen depends on the scale of depth.
        depth = points[..., 2:] * (self.size / CROP_SIZE) + DEPTH_OFFSET
        return jnp.concatenate([points[..., :2], depth], axis=-1)

    def _cameras(self, points: Float[Array, "n v 3"]) -> Float[Array, "n 3"]:
        return jnp.broadcast_to(jnp.asarray(self._camera.astype(points.dtype)), (len(points), 3))

    def _seen_faces(self, points: Float[Array, "n v 3"]) -> Int32[Array, "n h w"]:
        moving = self._drawn_faces[self._moving_numbers]
        size = (self.size, self.size)
        return raster.seen_faces(points, moving, size, numbers=self._moving_numbers, behind=self._behind)

    def _paint(
        self, vertices: Float[Array, "n v 3"], points: Float[Array, "n v 3"], face: Int32[Array, "n h w"]
    ) -> Float[Array, "n h w 3"]:
        normals = self._normals(vertices)
        if self._detached_normals:
            # Upstream: DECA's world2uv takes vertices and normals without their gradients (deca.py).
            normals = jax.lax.stop_gradient(normals)
        fragments = raster.Fragments(face, *raster.barycentric_coordinates(points, self._drawn_faces, face))
        seen_normals = raster.interpolate(fragments, self._drawn_faces, normals)
        # The camera only shifts, scales and turns y and z round: so it does to normals.
        front = (-seen_normals[..., 2] < NORMAL_LIMIT) & (face != -1)
        # The grey is interpolated like any colour, and weights add up to a little less than 1.
        grey = jnp.sum(fragments.barycentric * SHAPE_GREY, axis=-1)
        picture = jnp.where(front, grey * lamp_shading(seen_normals), 0)
        return jnp.broadcast_to(picture[..., None], (*picture.shape, 3))

    def _normals(self, vertices: Float[Array, "n v 3"]) -> Float[Array, "n v 3"]:
        kind = vertices.dtype
        still = jnp.asarray(self._still_sums.astype(kind))
        lit = normal_sums(vertices, self._moving_faces, self._lit) + jnp.broadcast_to(
            still[:, : self._lit], (len(vertices), self._lit, 3)
        )
        unlit = jnp.broadcast_to(still[:, self._lit :], (len(vertices), still.shape[1] - self._lit, 3))
        return normals_from_sums(jnp.concatenate([lit, unlit], axis=1))


@jax.jit
def _draw(renderer: ShapeRenderer, coefficients: Float[Array, "n c"]) -> Float[Array, "n h w 3"]:
    return renderer._images(coefficients)


def _check(head: HeadModel, template: CodeDict, size: int) -> None:
    if len(template) != 1:
        raise InputError(f"template: a code dict of {len(template)} frames, expected one")
    if template.shape.shape[1] != head.shape_size:
        raise InputError(f"template: {template.shape.shape[1]} shape coefficients, this head takes {head.shape_size}")
    if size < 1:
        raise InputError(f"size: {size} pixels, expected 1 or more")


def _sum(
    start: np.ndarray | Array | None, coefficients: Float[Array, "n k"], basis: np.ndarray | Array
) -> Float[Array, "n v 3"]:
    """Start plus the weighted basis, of which coefficients come first."""
    kind = coefficients.dtype
    flat = jnp.asarray(basis.reshape(len(basis), -1).astype(kind))
    total = jnp.dot(coefficients, flat, precision=_EXACT).reshape(len(coefficients), *basis.shape[1:])
    return total if start is None else total + jnp.asarray(start.astype(kind))[None]
