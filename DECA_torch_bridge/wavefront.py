"""Triangle meshes with texture coordinates in Wavefront's text format (.obj)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.errors import InputError
from asccl_jax.work import write_atomically

__all__ = ["TexturedMesh", "read_textured_mesh", "write_textured_mesh"]


@dataclasses.dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A mesh and its texture space.

    Attributes:
      vertices: Places of the vertices.
      faces: Triangles into `vertices`.
      uv: Texture coordinates, v upward.
      uv_faces: The same triangles into `uv`.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "m 2"]
    uv_faces: Int[np.ndarray, "f 3"]


def read_textured_mesh(path: Path) -> TexturedMesh:
    """Returns the mesh of a file whose faces are all triangles with texture coordinates.

    Raises:
      InputError: The file cannot be read, or a line is not what is expected (it is named).
    """
    rows: dict[str, list[list[float]]] = {"v": [], "vt": []}
    corners: list[list[list[int]]] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        kind, *words = line.split() or [""]
        try:
            if kind in rows:
                width = 3 if kind == "v" else 2
                rows[kind].append([float(word) for word in words[:width]])
                if len(rows[kind][-1]) != width:
                    raise ValueError
            elif kind == "f":
                corners.append([[int(part) for part in word.split("/")[:2]] for word in words])
                if [len(corner) for corner in corners[-1]] != [2, 2, 2]:
                    raise ValueError
        except ValueError:
            raise InputError(
                f"{path}: line {number}, {line[:60]!r}, is not as expected: `v x y z`, `vt u v` or a triangle"
                " `f a/a b/b c/c`"
            ) from None
    vertices, uv = np.array(rows["v"], np.float32), np.array(rows["vt"], np.float32)
    faces = np.array(corners, np.int32).reshape(-1, 3, 2) - 1
    if not len(faces):
        raise InputError(f"{path}: no triangles in it; expected a mesh with texture coordinates (.obj)")
    for values, count, what in ((faces[..., 0], len(vertices), "vertices"), (faces[..., 1], len(uv), "vt lines")):
        if values.min() < 0 or values.max() >= count:
            raise InputError(f"{path}: its triangles point outside its {count} {what}; the file may be cut short")
    return TexturedMesh(vertices, faces[..., 0].copy(), uv, faces[..., 1].copy())


def write_textured_mesh(
    path: Path,
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    uv: Float[np.ndarray, "m 2"],
    uv_faces: Int[np.ndarray, "f 3"],
) -> None:
    """Writes a mesh so that reading it gives the same float32 values."""
    lines = ["v {:.9g} {:.9g} {:.9g}".format(*vertex) for vertex in vertices.tolist()]
    lines += ["vt {:.9g} {:.9g}".format(*point) for point in uv.tolist()]
    both = np.stack([faces, uv_faces], -1).reshape(-1, 6) + 1
    lines += ["f {}/{} {}/{} {}/{}".format(*corner) for corner in both.tolist()]
    write_atomically(path, "\n".join(lines) + "\n")
