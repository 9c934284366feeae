"""What a head in FLAME's format is made of, wherever it comes from: licensed files or the built-in synthetic head."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_prep.synthetic.head import build_head
from DECA_torch_bridge.albedo_model import built_in_albedo
from DECA_torch_bridge.contour_embedding import contour_embedding
from DECA_torch_bridge.flame_files import read_flame_files, write_flame_files
from DECA_torch_bridge.uv_charts import displaced_faces, face_mask, uv_charts

__all__ = ["HeadAssets", "builtin_assets", "load_assets", "load_flame_assets", "write_builtin_assets"]

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
    """Returns the head of a folder with FLAME's and DECA's files; see `asccl assets check`.

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
