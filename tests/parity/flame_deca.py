"""FLAME and DECA's drawing replayed from a golden's synthetic head: what the bridge computes under the golden's names.

Vertices, landmarks and projection come from the coefficients. Everything drawn starts from the golden's own vertices
and its own projection, so that a pixel on an edge is decided by the rasteriser and not by the rounding before it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_prep.head_fit.head_assets import HeadAssets
from data_prep.head_fit.head_drawing import nmfc_colours
from DECA_torch_bridge import flame, raster, renderer, shading
from DECA_torch_bridge.deca_model import DetailDecoder
from DECA_torch_bridge.flame import Flame
from DECA_torch_bridge.renderer import TextureSpace, vertex_normals
from tests.parity import recipe
from tests.parity.metric import Replayed

__all__ = ["INPUTS", "MANIFESTS", "NAMES", "exactly_drawn", "make_assets", "replay"]

NAMES = r"flame_deca.*"
MANIFESTS = ("deca_D_detail",)
INPUTS = r"cfg|(f64/)?(in|model|embedding)/.*|(f64/)?rot/axis"

_DETAIL_PREFIX = "deca.D_detail."
_PUSH = 10
"""Upstream moves the mesh by this much before each of its draws, in place: the second and third find it moved."""

_EULER_DEGREES = 40


@dataclasses.dataclass
class _Golden:
    """Inputs of one golden in one precision.

    Attributes:
      arrays: Arrays of the file.
      dtype: Type of the computation.
      assets: The head.
      twins: Whether to start from exact twins where there are some.
    """

    arrays: Mapping[str, np.ndarray]
    dtype: torch.dtype
    assets: HeadAssets
    twins: bool

    def tensor(self, name: str) -> Tensor:
        """An array of the golden, or its exact twin."""
        twin = f"f64/{name}"
        array = self.arrays[twin] if self.twins and twin in self.arrays else self.arrays[name]
        return torch.from_numpy(array).to(self.dtype)

    def drawn(self, name: str, *shape: int, scale: float) -> Tensor:
        """A random input of the recipe."""
        return torch.from_numpy(scale * recipe.make_input(name, shape, int(self.arrays["cfg"][0]))).to(self.dtype)

    @property
    def faces(self) -> Tensor:
        return torch.from_numpy(np.array(self.assets.faces, np.int64))


def replay(
    arrays: Mapping[str, np.ndarray], manifests: Mapping[str, Sequence[Mapping[str, Any]]], *, exact: bool
) -> Replayed:
    """Everything a golden of FLAME and DECA holds.

    Args:
      arrays: Arrays of the file; inputs are read, and what the drawings start from.
      manifests: Entries of the decoder's state dict.
      exact: Compute in float64; nothing is drawn then, since the rasteriser is float32 by definition.
    """
    golden = _Golden(arrays, torch.float64 if exact else torch.float32, make_assets(arrays), twins=exact)
    results = Replayed(exact=lambda: exactly_drawn(arrays))
    with torch.no_grad():
        for part in (_head(golden), _rotations(golden), _decoded(golden, manifests[MANIFESTS[0]])):
            results.tensors |= {name: value.numpy() for name, value in part.items()}
        if not exact:
            results.tensors |= _drawn(golden)
    return results


def exactly_drawn(arrays: Mapping[str, np.ndarray]) -> Replayed:
    """What the float32 run draws, of the same vertices and in the same triangles, with float64 arithmetic.

    Weights in a triangle are quotients of areas: a thin one, or one seen from its side, makes much of a rounding. Which
    triangle a pixel sees is decided in float32 in both runs.
    """
    golden = _Golden(arrays, torch.float64, make_assets(arrays), twins=False)
    with torch.no_grad():
        return Replayed(_drawn(golden))


def _drawn(golden: _Golden) -> dict[str, np.ndarray]:
    parts = _rasterised(golden) | _rendered(golden) | _detail(golden)
    return {name: value.numpy() for name, value in parts.items()}


def make_assets(arrays: Mapping[str, np.ndarray]) -> HeadAssets:
    """Returns the golden's synthetic head."""
    seed, count = int(arrays["cfg"][0]), len(arrays["model/v_template"])
    # Upstream's loader casts the product to float32.
    shapedirs, posedirs = (
        np.float32(scale * np.float64(recipe.make_input(f"flame.{name}", (count, 3, size), seed)))
        for name, size, scale in (("shapedirs", 400, 0.00015), ("posedirs", 36, 0.0003))
    )
    faces = arrays["model/f"].astype(np.int32)
    return HeadAssets(
        v_template=arrays["model/v_template"],
        faces=faces,
        shapedirs=shapedirs,
        posedirs=posedirs,
        joint_regressor=arrays["model/J_regressor"],
        # -1 is stored as an unsigned number.
        parents=arrays["model/kintree_table"][0].astype(np.int32),
        skinning_weights=arrays["model/weights"],
        static_landmark_faces=arrays["embedding/static_lmk_faces_idx"],
        static_landmark_weights=arrays["embedding/static_lmk_bary_coords"],
        dynamic_landmark_faces=arrays["embedding/dynamic_lmk_faces_idx"],
        dynamic_landmark_weights=arrays["embedding/dynamic_lmk_bary_coords"],
        full_landmark_faces=arrays["embedding/full_lmk_faces_idx"][0],
        full_landmark_weights=arrays["embedding/full_lmk_bary_coords"][0],
        uv=arrays["model/uv"],
        uv_faces=faces,
        uv_face_eye_mask=np.ones((256, 256), np.float32),
        fixed_displacement=np.zeros((256, 256), np.float32),
        albedo_mean=None,
        albedo_basis=None,
        mouth_faces=np.zeros(0, np.int32),
        source="flame",
    )


def _head(golden: _Golden) -> dict[str, Tensor]:
    layer = Flame(golden.assets).to(golden.dtype)
    shape, expression, pose, cam = (golden.tensor(f"in/{name}") for name in ("shape", "exp", "pose", "cam"))
    head = layer(shape, expression, pose)
    template = golden.tensor("model/v_template")
    return {
        "out/verts": head.vertices,
        "out/landmarks2d": head.landmarks2d,
        "out/landmarks3d": head.landmarks3d,
        "out/joints_posed": head.joints,
        "out/verts_with_eye_pose": layer(shape, expression, pose, eye_pose=golden.tensor("in/eye_pose")).vertices,
        "out/verts_zero_pose": layer(shape, expression, torch.zeros_like(pose)).vertices,
        "out/dynamic_faces": torch.from_numpy(golden.assets.dynamic_landmark_faces)[layer.contour_rows(pose)],
        "proj/batch_orth_proj": flame.project(head.vertices, cam),
        "proj/trans_verts": flame.to_image_space(head.vertices, cam),
        "proj/landmarks2d": flame.landmarks_in_image_space(head.landmarks2d, cam),
        "nmfc/vertex_colours": torch.from_numpy(nmfc_colours(template.numpy())),
        "mesh/vertex_normals": vertex_normals(head.vertices, golden.faces),
    }


def _rotations(golden: _Golden) -> dict[str, Tensor]:
    axis = golden.tensor("rot/axis")
    matrix, quaternion = flame.matrix_from_axis_angle(axis), flame.quaternion_from_axis_angle(axis)
    by_degrees = flame.matrix_from_euler_zyx(axis * (_EULER_DEGREES * math.pi / 180))
    return {
        "rot/rodrigues": matrix,
        "rot/euler_y_of_matrix": flame.yaw_of_matrix(matrix),
        "rot/axis_to_quat": quaternion,
        "rot/quat_to_matrix": flame.matrix_from_quaternion(quaternion),
        "rot/quat_to_axis": flame.axis_angle_from_quaternion(quaternion),
        "rot/matrix_to_quat": flame.quaternion_from_matrix(flame.matrix_from_quaternion(quaternion)),
        "rot/euler_to_quat": flame.quaternion_from_euler(axis),
        "rot/euler_to_axis": flame.axis_angle_from_euler(axis),
        "rot/euler_to_matrix": flame.matrix_from_euler(axis),
        # Upstream: the nine entries come first and are then cut into threes, which mixes the matrices.
        "rot/deg_to_matrix": by_degrees.reshape(-1, 9).T.reshape(by_degrees.shape),
    }


def _decoded(golden: _Golden, manifest: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    seed = int(golden.arrays["cfg"][0])
    decoder = DetailDecoder().eval()
    weights = recipe.make_weights(manifest, seed, prefix=_DETAIL_PREFIX)
    decoder.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()})
    code = golden.drawn("deca.D_detail.in", 2, 181, scale=1)
    decoded = decoder.to(golden.dtype)(code[:, :3], code[:, 3:53], code[:, 53:])
    return {"D_detail/out": decoded[:, None], "D_detail/out_strided4": decoded[:, ::4, ::4]}


def _rasterised(golden: _Golden) -> dict[str, Tensor]:
    fragments = raster.TorchRasteriser()(_pushed(golden, 1), golden.faces, _picture_size(golden))
    seen = fragments.face >= 0
    # PyTorch3D, which the golden follows here, marks the background with -1 everywhere.
    return {
        "raster/pix_to_face": fragments.face,
        "raster/zbuf": torch.where(seen, fragments.depth, -1),
        "raster/bary": torch.where(seen[..., None], fragments.barycentric, -1),
    }


def _rendered(golden: _Golden) -> dict[str, Tensor]:
    faces, size = golden.faces, _picture_size(golden)
    normals = vertex_normals(golden.tensor("out/verts"), faces)
    pushed = [_pushed(golden, times) for times in (1, 2, 3)]
    drawn = [raster.TorchRasteriser()(vertices, faces, size) for vertices in pushed]
    transformed = [vertex_normals(vertices, faces) for vertices in pushed]
    space = _texture_space(golden)
    shader = shading.TorchShader()
    colours = torch.from_numpy(nmfc_colours(golden.tensor("model/v_template").numpy()))
    shape = shader.paint(drawn[1], faces, normals, transformed[1][..., 2], colours)
    # Upstream: NMFC is drawn from the mesh moved once more, behind the mask of the shape image.
    nmfc = raster.interpolate(drawn[2], faces, colours[None]) * shape.front[..., None]
    grid = shading.texture_grid(drawn[0], space.faces, space.positions)
    seen = (drawn[0].face >= 0)[..., None]
    normal_image = raster.interpolate(drawn[0], faces, normals) * seen
    facing = raster.interpolate(drawn[0], faces, transformed[0])[..., 2]
    texture_normals = golden.tensor("in/uv_detail_normals").movedim(1, -1)
    detail = shader.paint_detail(drawn[0], space.faces, space.positions, texture_normals, shape.front)
    albedo = golden.tensor("in/albedo").movedim(1, -1)
    image = shading.texture_image(drawn[0], grid, normal_image, albedo, golden.tensor("in/light"))
    images = {
        "images": image,
        "normal_images": normal_image,
        "alpha_images": seen.float(),
        "pos_mask": shading.texture_front(facing)[..., None].float(),
        "shape_images": shape.shape,
        # The golden's mask counts what nothing is seen of as turned to the camera.
        "shape_pos_mask": (shape.front[..., None] | ~seen).float(),
        "shape_detail_images": detail,
        "nmfc_images": nmfc,
        "world2uv": space.spread(golden.tensor("out/verts"), faces),
    }
    results = {f"render/{name}": value.movedim(-1, 1) for name, value in images.items()}
    z_names = ("z_after_forward", "z_after_shape", "z_final")
    results |= {f"render/{name}": vertices[:, :4, 2] for name, vertices in zip(z_names, pushed, strict=True)}
    results["render/nmfc_uint8_bgr"] = (nmfc * 255).clamp(0, 255).to(torch.uint8).flip(-1)
    return results | {"render/grid": grid, "render/transformed_normals": transformed[0]}


def _detail(golden: _Golden) -> dict[str, Tensor]:
    space = _texture_space(golden)
    vertices = golden.tensor("out/verts")
    batch = len(vertices)
    normals = vertex_normals(vertices, golden.faces)
    decoded = golden.drawn("flame.uvz", batch, 1, space.size, space.size, scale=0.001)[:, 0]
    fixed = golden.drawn("flame.fixdis", space.size, space.size, scale=0.0005)
    places, directions = (space.spread(values, golden.faces) for values in (vertices, normals))
    detail_normals = renderer.detail_normals(renderer.displace(places, directions, decoded, fixed))
    faces = renderer.grid_faces(space.size)
    given = golden.tensor("detail/uv_detail_normals").movedim(1, -1)
    shaded = shading.harmonic_shading(given, golden.tensor("in/light"))
    return {
        "detail/uv_detail_normals": detail_normals.movedim(-1, 1),
        "detail/sh_shading": shaded.movedim(-1, 1),
        "mesh/dense_faces_shape": torch.tensor([1, *faces.shape]),
        "mesh/dense_faces_head": faces[: len(golden.arrays["mesh/dense_faces_head"])],
    }


def _texture_space(golden: _Golden) -> TextureSpace:
    size = golden.arrays["render/world2uv"].shape[-1]
    return TextureSpace(golden.assets.uv, golden.assets.uv_faces, size=size)


def _pushed(golden: _Golden, times: int) -> Tensor:
    vertices = golden.tensor("proj/trans_verts").clone()
    for _ in range(times):
        vertices[..., 2] += _PUSH
    return vertices


def _picture_size(golden: _Golden) -> int:
    return int(golden.arrays["cfg"][3])
