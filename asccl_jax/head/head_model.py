"""A head in FLAME's format: mesh, blend shapes, joints and landmarks, and the file it is kept in.

The npz file holds the fields of `HeadModel` under their own names, and `format`. The DECA bridge writes it
(`asccl head export`), from licensed files or from the built-in head.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file

__all__ = ["FORMAT", "HEAD_NAME", "JOINTS", "HeadModel", "load_head_model", "save_head_model"]

FORMAT = "asccl-head-1"


HEAD_NAME = "head.npz"
"""Name of the file beside the tracks or the reconstruction that were made with the head."""


JOINTS = 5
"""Root, neck, jaw, left eye, right eye."""


# Names of axes in shapes; equal names mean equal sizes.
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "v_template": ("n", 3),
    "faces": ("f", 3),
    "identity_basis": ("n", 3, "s"),
    "expression_basis": ("n", 3, "e"),
    "pose_basis": ("n", 3, 9 * (JOINTS - 1)),
    "joint_regressor": (JOINTS, "n"),
    "parents": (JOINTS,),
    "skinning_weights": ("n", JOINTS),
    "static_landmark_faces": (51,),
    "static_landmark_weights": (51, 3),
    "dynamic_landmark_faces": (79, 17),
    "dynamic_landmark_weights": (79, 17, 3),
    "full_landmark_faces": (68,),
    "full_landmark_weights": (68, 3),
    "mouth_faces": ("k",),
}


_INTO_VERTICES = ("faces",)


_INTO_FACES = ("static_landmark_faces", "dynamic_landmark_faces", "full_landmark_faces", "mouth_faces")


_INTEGERS = ("parents", *_INTO_VERTICES, *_INTO_FACES)


@no_type_check  # checks itself, with words a user understands
@dataclasses.dataclass(frozen=True, eq=False)
class HeadModel:
    """A head: its mesh, how it deforms, its landmarks.

    Attributes:
      v_template: Mean head at rest: metres, y up, looking along +z.
      faces: Triangles, counter-clockwise from outside.
      identity_basis: Displacement per identity coefficient.
      expression_basis: Displacement per expression coefficient.
      pose_basis: Displacement per entry of the pose feature: the row-major rotations of joints 1..4, less the identity.
      joint_regressor: Joints (root, neck, jaw, left eye, right eye) as weighted sums of shaped vertices.
      parents: Parent of each joint, -1 for the root; parents come before their children.
      skinning_weights: Share of each joint's motion that each vertex takes.
      static_landmark_faces: Triangle of each of landmarks 17..67.
      static_landmark_weights: Barycentric coordinates in that triangle.
      dynamic_landmark_faces: Triangles of landmarks 0..16 for 79 yaws: rows 0..39 for 0..39 degrees, 40..78 for
        -1..-39.
      dynamic_landmark_weights: Barycentric coordinates in those triangles.
      full_landmark_faces: Triangles of all 68 on the frontal face.
      full_landmark_weights: Barycentric coordinates in those triangles.
      mouth_faces: Triangles inside the mouth, left out of shape images; none in FLAME.
      source: Where the head comes from: "flame" for FLAME's own files, "builtin" for the synthetic one.
    """

    v_template: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    identity_basis: Float[np.ndarray, "n 3 s"]
    expression_basis: Float[np.ndarray, "n 3 e"]
    pose_basis: Float[np.ndarray, "n 3 36"]
    joint_regressor: Float[np.ndarray, "5 n"]
    parents: Int[np.ndarray, "5"]
    skinning_weights: Float[np.ndarray, "n 5"]
    static_landmark_faces: Int[np.ndarray, "51"]
    static_landmark_weights: Float[np.ndarray, "51 3"]
    dynamic_landmark_faces: Int[np.ndarray, "79 17"]
    dynamic_landmark_weights: Float[np.ndarray, "79 17 3"]
    full_landmark_faces: Int[np.ndarray, "68"]
    full_landmark_weights: Float[np.ndarray, "68 3"]
    mouth_faces: Int[np.ndarray, " k"]
    source: str

    def __post_init__(self) -> None:
        problems = _problems({name: getattr(self, name) for name in _SHAPES})
        if problems:
            raise InputError(f"head model: {'; '.join(problems)}")

    @property
    def shape_size(self) -> int:
        """Number of identity coefficients."""
        return self.identity_basis.shape[-1]

    @property
    def expression_size(self) -> int:
        """Number of expression coefficients."""
        return self.expression_basis.shape[-1]


def save_head_model(path: str | os.PathLike[str], head: HeadModel) -> None:
    """Writes a head as an npz file, whole or not at all."""
    fields: dict[str, Any] = {name: getattr(head, name) for name in _SHAPES}
    with atomic_file(Path(path)) as file:
        np.savez_compressed(file, format=np.array(FORMAT), source=np.array(head.source), **fields)


def load_head_model(path: str | os.PathLike[str]) -> HeadModel:
    """Returns a saved head.

    Raises:
      InputError: No such file, a damaged one, or fields that are missing or do not fit together; all of them named.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; `asccl head export --output {path}` writes a head model")
    try:
        # Opened here: NumPy leaves a file open that turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            fields = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: damaged or no npz file ({error}); write it again with `asccl head export`"
        ) from error
    found = str(fields.pop("format", "none"))
    if found != FORMAT:
        raise InputError(f"{path}: format {found!r}, expected {FORMAT!r}; write it again with `asccl head export`")
    known = {*_SHAPES, "source"}
    if fields.keys() != known:
        missing, unknown = sorted(known - fields.keys()), sorted(fields.keys() - known)
        raise InputError(f"{path}: missing fields {missing or 'none'}, unknown fields {unknown or 'none'}")
    source = str(fields.pop("source"))
    try:
        return HeadModel(**fields, source=source)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _problems(fields: dict[str, np.ndarray]) -> list[str]:
    problems = []
    sizes: dict[int | str, int] = {}
    for name, value in fields.items():
        expected = _SHAPES[name]
        if len(value.shape) == len(expected):
            for axis, size in zip(expected, value.shape, strict=True):
                sizes.setdefault(axis, axis if isinstance(axis, int) else size)
        wanted = tuple(sizes.get(axis, axis) for axis in expected)
        kind = "iu" if name in _INTEGERS else "f"
        if value.shape != wanted:
            problems.append(f"{name} has shape {value.shape}, expected ({', '.join(map(str, wanted))})")
        elif value.dtype.kind not in kind:
            problems.append(f"{name} has type {value.dtype}")
        elif kind == "f" and not np.isfinite(value).all():
            problems.append(f"{name} is not finite")
    return problems or _wrong_references(fields)


def _wrong_references(fields: dict[str, np.ndarray]) -> list[str]:
    problems = []
    limits = {**dict.fromkeys(_INTO_VERTICES, "v_template"), **dict.fromkeys(_INTO_FACES, "faces")}
    for name, target in limits.items():
        value, count = fields[name], len(fields[target])
        if value.size and not (value.min() >= 0 and value.max() < count):
            problems.append(f"{name} holds {value.min()}..{value.max()}, expected 0..{count - 1}")
    parents = fields["parents"].tolist()
    if parents[0] != -1 or not all(0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        problems.append(f"parents are {parents}, expected -1 and then an earlier joint each")
    return problems
