"""FLAME's mesh, projection, normals, rasteriser and shape images in JAX, replayed from a golden's synthetic head.

The part of `flame_deca` that `asccl_jax.image` computes, under the golden's names; what is drawn starts from the
golden's own vertices and its own projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax.head import flame, raster
from asccl_jax.head.drawing_rules import NORMAL_LIMIT, SHAPE_GREY
from asccl_jax.head.raster import lamp_shading, vertex_normals
from data_prep.head_fit.head_assets import head_model
from tests.parity.flame_deca import exactly_drawn, make_assets
from tests.parity.metric import Replayed

__all__ = ["replay"]

_PUSH = 10
"""Upstream moves the mesh by this much before each of its draws, in place: the second finds it moved once more."""


def replay(arrays: Mapping[str, np.ndarray], *, exact: bool) -> Replayed:
    """Returns what JAX's geometry computes of a golden of FLAME and DECA.

    Args:
      arrays: Arrays of the file; inputs are read, and what the drawings start from.
      exact: Compute in float64; nothing is drawn then, since the rasteriser is float32 by definition.
    """
    with jax.enable_x64(exact), jax.default_matmul_precision("highest"):

        def given(name: str) -> jax.Array:
            twin = f"f64/{name}"
            return jnp.asarray(arrays[twin] if exact and twin in arrays else arrays[name])

        found = _head(arrays, given)
        if not exact:
            found |= _drawn(arrays, given)
        tensors = {name: np.asarray(value) for name, value in found.items()}
        # Another implementation's float64 run of the same drawings: this one's roundings do not judge themselves.
        return Replayed(tensors, exact=lambda: exactly_drawn(arrays))


def _head(arrays: Mapping[str, np.ndarray], given: Callable[[str], jax.Array]) -> dict[str, jax.Array]:
    head = head_model(make_assets(arrays))
    shape, expression, pose, cam = (given(f"in/{name}") for name in ("shape", "exp", "pose", "cam"))
    posed = jax.jit(lambda pose, eyes: flame.posed_head(head, shape, expression, pose, eye_pose=eyes))
    at_rest = jnp.zeros_like(pose)
    found = posed(pose, at_rest)
    matrix = flame.matrix_from_axis_angle(given("rot/axis"))
    rows = flame.contour_rows(flame.joint_rotations(pose))
    return {
        "out/verts": found.vertices,
        "out/landmarks2d": found.landmarks2d,
        "out/landmarks3d": found.landmarks3d,
        "out/joints_posed": found.joints,
        "out/verts_with_eye_pose": posed(pose, given("in/eye_pose")).vertices,
        "out/verts_zero_pose": posed(at_rest, at_rest).vertices,
        "out/dynamic_faces": head.dynamic_landmark_faces[np.asarray(rows)],
        "proj/batch_orth_proj": flame.project(found.vertices, cam),
        "proj/trans_verts": flame.to_image_space(found.vertices, cam),
        "proj/landmarks2d": flame.landmarks_in_image_space(found.landmarks2d, cam),
        "mesh/vertex_normals": vertex_normals(found.vertices, head.faces),
        "rot/rodrigues": matrix,
        "rot/euler_y_of_matrix": flame.yaw_of_matrix(matrix),
    }


def _drawn(arrays: Mapping[str, np.ndarray], given: Callable[[str], jax.Array]) -> dict[str, jax.Array]:
    faces, size = arrays["model/f"].astype(np.int32), int(arrays["cfg"][3])
    draw = jax.jit(lambda points: raster.rasterise(points, faces, (size, size)))
    points = [given("proj/trans_verts") + np.float32([[[0, 0, times * _PUSH]]]) for times in (1, 2)]
    first, second = (draw(some) for some in points)
    seen = first.face >= 0
    normals = vertex_normals(given("out/verts"), faces)
    facing = raster.interpolate(second, faces, vertex_normals(points[1], faces))[..., 2]
    light = lamp_shading(raster.interpolate(second, faces, normals))
    shape = jnp.sum(second.barycentric * SHAPE_GREY, axis=-1) * light
    shape = jnp.where((facing < NORMAL_LIMIT) & (second.face >= 0), shape, 0)
    return {
        "raster/pix_to_face": first.face,
        "raster/zbuf": jnp.where(seen, first.depth, -1),
        "raster/bary": jnp.where(seen[..., None], first.barycentric, -1),
        "render/shape_images": jnp.broadcast_to(shape[:, None], (len(shape), 3, size, size)),
        "render/normal_images": jnp.moveaxis(raster.interpolate(first, faces, normals), -1, 1),
        "render/alpha_images": seen[:, None].astype(jnp.float32),
    }
