"""What a head in FLAME's format is made of, wherever it comes from: licensed files or the built-in synthetic head."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.errors import writing
from asccl_jax.head.head_model import HeadModel, save_head_model
from data_prep.head_fit.flame_files import (
    built_in_albedo,
    displaced_faces,
    face_mask,
    read_flame_files,
    uv_charts,
    write_flame_files,
)
from data_prep.synthetic.head import EXPRESSION_START, JOINTS, SyntheticHead, build_head
from data_prep.synthetic.landmark_embedding import contour_landmarks

__all__ = [
    "YAWS",
    "HeadAssets",
    "builtin_assets",
    "contour_embedding",
    "export_head",
    "head_model",
    "load_assets",
    "load_flame_assets",
    "write_builtin_assets",
]

# Landmarks 0..16 of the built-in head as points on its mesh: the outline of the face, for every degree of yaw.

YAWS = (*range(40), *range(-1, -40, -1))
"""Degrees of yaw of the rows of FLAME's dynamic landmark embedding; positive turns the face toward +x."""


def contour_embedding(head: SyntheticHead) -> tuple[Int[np.ndarray, "79 17"], Float[np.ndarray, "79 17 3"]]:
    """Returns triangles and barycentric coordinates of the outline's landmarks, one row per entry of `YAWS`.

    A landmark lies where a ray from between the eyes crosses the last side of a triangle of the face proper, in the
    picture of the mean head turned by the yaw.
    """
    sides, triangles = _sides(head.f[head.face_faces])
    joints = head.J_regressor @ head.v_template
    eyes = joints[[JOINTS.index("right_eye"), JOINTS.index("left_eye")]]
    faces, weights = [], []
    for yaw in YAWS:
        across = np.array([np.cos(np.radians(yaw)), 0, np.sin(np.radians(yaw))])
        places, right, left = (
            np.stack([points @ across, -points[..., 1]], -1).astype(np.float32)
            for points in (head.v_template, eyes[0], eyes[1])
        )
        centre = 0.5 * (right + left)
        rays = contour_landmarks(places, sides, right, left) - centre
        side, share = _last_crossing(places - centre, sides, rays)
        triangle = head.face_faces[triangles[side]]
        faces.append(triangle)
        corners = head.f[triangle]
        start, end = sides[side].T[:, :, None]
        weights.append((corners == start) * (1 - share)[:, None] + (corners == end) * share[:, None])
    return np.array(faces, np.int32), np.array(weights, np.float32)


def _sides(faces: Int[np.ndarray, "g 3"]) -> tuple[Int[np.ndarray, "e 2"], Int[np.ndarray, " e"]]:
    """Returns every side of the triangles once, and a triangle it belongs to."""
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, first = np.unique(sides, axis=0, return_index=True)
    return unique, first % len(faces)


def _last_crossing(
    places: Float[np.ndarray, "n 2"], sides: Int[np.ndarray, "e 2"], rays: Float[np.ndarray, "17 2"]
) -> tuple[Int[np.ndarray, "17"], Float[np.ndarray, "17"]]:
    """Returns for each ray from the origin the side it crosses last, and where on it, 0 at its start to 1."""
    start, end = np.moveaxis(places[sides], 1, 0)
    found, share = np.zeros(len(rays), int), np.zeros(len(rays))
    for ray, (x, y) in enumerate(rays):
        before, after = x * start[:, 1] - y * start[:, 0], x * end[:, 1] - y * end[:, 0]
        crossing = np.flatnonzero((before * after <= 0) & (before != after))
        part = before[crossing] / (before[crossing] - after[crossing])
        reach = (start[crossing] + part[:, None] * (end - start)[crossing]) @ np.array([x, y])
        last = reach.argmax()
        found[ray], share[ray] = crossing[last], part[last]
    return found, share


UV_SIZE = 256
"""Side of the images in texture space."""


@dataclasses.dataclass(frozen=True, eq=False)
class HeadAssets:
    """A head: its mesh, how it deforms, its landmarks, its texture space.

    Attributes:
      v_template: Mean head at rest: metres, y up, looking along +z.
      faces: Triangles, counter-clockwise from outside.
      shapedirs: Displacement per coefficient: 0..299 identity, 300..399 expression.
      posedirs: Displacement per entry of the pose feature (row-major entries of the rotations of joints 1..4, less 1).
      joint_regressor: Joints (root, neck, jaw, left eye, right eye) as weighted sums of shaped vertices.
      parents: Parent of each joint, -1 for the root.
      skinning_weights: Share of each joint's motion that each vertex takes.
      static_landmark_faces: Triangle of each of landmarks 17..67.
      static_landmark_weights: Barycentric coordinates in that triangle.
      dynamic_landmark_faces: Triangles of landmarks 0..16 for 79 yaws: rows 0..39 for 0..39 degrees, 40..78 for
        -1..-39.
      dynamic_landmark_weights: Barycentric coordinates in those triangles.
      full_landmark_faces: Triangles of all 68 on the frontal face.
      full_landmark_weights: Barycentric coordinates in those triangles.
      uv: Texture coordinates, 0..1, v upward (v = 1 is the first row of an image).
      uv_faces: Triangles of the texture space: corners of `faces`, in the same order, into `uv`.
      uv_face_eye_mask: Where displacements of the detail decoder count, 0..1.
      fixed_displacement: Displacement along the normal that every face has, metres.
      albedo_mean: Mean texture, RGB, about 0..1; None where there is no albedo model.
      albedo_basis: Change of the texture per coefficient.
      mouth_faces: Triangles inside the mouth, left out of NMFC and shape images; none in FLAME.
      source: "flame" for a head read from FLAME's own files, "builtin" for the synthetic one.
      shape_size: Identity coefficients that DECA uses.
      expression_size: Expression coefficients that DECA uses.
    """

    v_template: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    shapedirs: Float[np.ndarray, "n 3 400"]
    posedirs: Float[np.ndarray, "n 3 36"]
    joint_regressor: Float[np.ndarray, "5 n"]
    parents: Int[np.ndarray, "5"]
    skinning_weights: Float[np.ndarray, "n 5"]
    static_landmark_faces: Int[np.ndarray, "51"]
    static_landmark_weights: Float[np.ndarray, "51 3"]
    dynamic_landmark_faces: Int[np.ndarray, "79 17"]
    dynamic_landmark_weights: Float[np.ndarray, "79 17 3"]
    full_landmark_faces: Int[np.ndarray, "68"]
    full_landmark_weights: Float[np.ndarray, "68 3"]
    uv: Float[np.ndarray, "m 2"]
    uv_faces: Int[np.ndarray, "f 3"]
    uv_face_eye_mask: Float[np.ndarray, "256 256"]
    fixed_displacement: Float[np.ndarray, "256 256"]
    albedo_mean: Float[np.ndarray, "256 256 3"] | None
    albedo_basis: Float[np.ndarray, "256 256 3 k"] | None
    mouth_faces: Int[np.ndarray, " k"]
    source: str
    shape_size: int = 100
    expression_size: int = 50


def load_assets(directory: Path | None) -> HeadAssets:
    """Returns the head of a folder in FLAME's files, or the built-in one where no folder is named."""
    return builtin_assets() if directory is None else load_flame_assets(directory)


def load_flame_assets(directory: Path) -> HeadAssets:
    """Returns the head of a folder with FLAME's and DECA's files; see `asccl head check`.

    Raises:
      InputError: Files are missing, unsafe, or hold something else than expected; all of it listed.
    """
    return HeadAssets(**read_flame_files(directory))


def write_builtin_assets(directory: Path) -> None:
    """Writes the built-in head as FLAME's files; `load_flame_assets` reads them back equal."""
    assets = builtin_assets()
    write_flame_files(directory, {field.name: getattr(assets, field.name) for field in dataclasses.fields(assets)})


@functools.cache
def builtin_assets() -> HeadAssets:
    """Returns the synthetic head of `data_prep.synthetic` with everything that DECA needs of one.

    Its pose correctives and its fixed displacement are zero: the mesh is fine enough to carry what FLAME's carries.
    """
    head = build_head()
    dynamic_faces, dynamic_weights = contour_embedding(head)
    uv = uv_charts(head.f, head.uv)
    mean, basis = built_in_albedo()
    return HeadAssets(
        v_template=head.v_template,
        faces=head.f,
        shapedirs=head.shapedirs,
        posedirs=head.posedirs,
        joint_regressor=head.J_regressor,
        parents=head.kintree_table[0].astype(np.int32),
        skinning_weights=head.weights,
        static_landmark_faces=head.landmark_faces,
        static_landmark_weights=head.landmark_weights,
        dynamic_landmark_faces=dynamic_faces,
        dynamic_landmark_weights=dynamic_weights,
        full_landmark_faces=np.concatenate([dynamic_faces[0], head.landmark_faces]),
        full_landmark_weights=np.concatenate([dynamic_weights[0], head.landmark_weights]),
        uv=uv,
        uv_faces=head.f.copy(),
        uv_face_eye_mask=face_mask(uv, head.f[displaced_faces(head)], size=UV_SIZE),
        fixed_displacement=np.zeros((UV_SIZE, UV_SIZE), np.float32),
        albedo_mean=mean,
        albedo_basis=basis,
        mouth_faces=head.mouth_faces,
        source="builtin",
    )


# The part of a head that JAX draws with, written to one file.


def head_model(assets: HeadAssets) -> HeadModel:
    """Returns mesh, blend shapes, joints and landmarks of a head: as many coefficients as DECA uses."""

    def floats(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, np.float32)

    def numbers(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, np.int32)

    expression = slice(EXPRESSION_START, EXPRESSION_START + assets.expression_size)
    return HeadModel(
        v_template=floats(assets.v_template),
        faces=numbers(assets.faces),
        identity_basis=floats(assets.shapedirs[:, :, : assets.shape_size]),
        expression_basis=floats(assets.shapedirs[:, :, expression]),
        pose_basis=floats(assets.posedirs),
        joint_regressor=floats(assets.joint_regressor),
        parents=numbers(assets.parents),
        skinning_weights=floats(assets.skinning_weights),
        static_landmark_faces=numbers(assets.static_landmark_faces),
        static_landmark_weights=floats(assets.static_landmark_weights),
        dynamic_landmark_faces=numbers(assets.dynamic_landmark_faces),
        dynamic_landmark_weights=floats(assets.dynamic_landmark_weights),
        full_landmark_faces=numbers(assets.full_landmark_faces),
        full_landmark_weights=floats(assets.full_landmark_weights),
        mouth_faces=numbers(assets.mouth_faces),
        source=assets.source,
    )


def export_head(assets: HeadAssets, path: Path) -> None:
    """Writes a head for JAX; `asccl_jax.head.flame.load_head_model` reads it.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_head_model(path, head_model(assets))
