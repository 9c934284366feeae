"""FLAME's and DECA's own files of a head: each read and checked on its own, all of them together, and written."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.sparse

from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file, write_atomically
from DECA_torch_bridge.albedo_model import read_albedo, write_albedo
from DECA_torch_bridge.safe_pickle import load_object_npy, load_pickle
from DECA_torch_bridge.wavefront import read_textured_mesh, write_textured_mesh

__all__ = [
    "ALBEDO",
    "DECA_MODEL",
    "FIXED_DISPLACEMENT",
    "HEAD_TEMPLATE",
    "LANDMARK_EMBEDDING",
    "MODEL",
    "READERS",
    "UV_FACE_EYE_MASK",
    "read_flame_files",
    "survey",
    "write_flame_files",
]

MODEL = "generic_model.pkl"
LANDMARK_EMBEDDING = "landmark_embedding.npy"
HEAD_TEMPLATE = "head_template.obj"
UV_FACE_EYE_MASK = "uv_face_eye_mask.png"
FIXED_DISPLACEMENT = "fixed_displacement_256.npy"
ALBEDO = "FLAME_albedo_from_BFM.npz"
DECA_MODEL = "deca_model.tar"
"""DECA's networks, which lie beside the head."""

_UV_SIZE = 256
_PARENTS = (-1, 0, 1, 1, 1)

Fields = dict[str, Any]
"""Fields of `HeadAssets` by name."""


def read_flame_files(directory: Path) -> Fields:
    """Returns the fields of `HeadAssets` that the files of a folder hold.

    Raises:
      InputError: Files are missing, unsafe or unsound; one line lists everything.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; expected one with {MODEL} and the files beside it")
    fields, problems = survey(directory)
    if not (directory / ALBEDO).exists():
        del problems[ALBEDO]
    if problems:
        raise InputError(
            f"{directory}: no complete head: {'; '.join(problems.values())}; `asccl assets check {directory}` says"
            " where to get the files"
        )
    return {"albedo_mean": None, "albedo_basis": None} | fields


def survey(directory: Path) -> tuple[Fields, dict[str, str]]:
    """Returns what the sound files of a folder hold, and what is wrong with each of the others, by name."""
    fields: Fields = {}
    problems = {}
    for name, read in READERS.items():
        try:
            fields.update(read(directory / name))
        except InputError as error:
            problems[name] = str(error)
    template_faces = fields.pop("template_faces", None)
    if MODEL not in problems:
        count = len(fields["faces"])
        if template_faces is not None and not np.array_equal(template_faces, fields["faces"]):
            problems[HEAD_TEMPLATE] = (
                f"{directory / HEAD_TEMPLATE}: its {len(template_faces)} triangles are not the {count} of {MODEL}: it"
                " is of another head"
            )
        beyond = [
            name
            for field, (name, _) in _EMBEDDING.items()
            if field.endswith("faces") and field in fields and not _within(fields[field], count)
        ]
        if beyond:
            problems[LANDMARK_EMBEDDING] = (
                f"{directory / LANDMARK_EMBEDDING}: {', '.join(beyond)} point outside the {count} triangles of {MODEL}"
            )
    return fields, problems


def write_flame_files(directory: Path, fields: Mapping[str, Any]) -> None:
    """Writes the fields of `HeadAssets` as FLAME's files into a folder that has none of them yet.

    Raises:
      InputError: The folder has such a file already: licensed files are never written over.
    """
    taken = [name for name in READERS if (directory / name).exists()]
    if taken:
        raise InputError(f"{directory}: already has {', '.join(taken)}; name an empty folder")
    directory.mkdir(parents=True, exist_ok=True)
    _write_landmark_embedding(directory / LANDMARK_EMBEDDING, fields)
    write_textured_mesh(
        directory / HEAD_TEMPLATE, fields["v_template"], fields["faces"], fields["uv"], fields["uv_faces"]
    )
    mask = cv2.imencode(".png", np.round(255 * fields["uv_face_eye_mask"]).astype(np.uint8))[1]
    write_atomically(directory / UV_FACE_EYE_MASK, mask.tobytes())
    with atomic_file(directory / FIXED_DISPLACEMENT) as file:
        np.save(file, fields["fixed_displacement"].astype(np.float64))
    if fields["albedo_mean"] is not None:
        write_albedo(directory / ALBEDO, fields["albedo_mean"], fields["albedo_basis"])
    _write_model(directory / MODEL, fields)


def _read_model(path: Path) -> Fields:
    content = load_pickle(_present(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected the dictionary of a FLAME model")
    vertices = np.shape(content.get("v_template", ()))[:1] or ("n",)
    shapes: dict[str, tuple[int | str, ...]] = {
        "v_template": (*vertices, 3),
        "f": ("faces", 3),
        "shapedirs": (*vertices, 3, 400),
        "posedirs": (*vertices, 3, 36),
        "J_regressor": (5, *vertices),
        "kintree_table": (2, 5),
        "weights": (*vertices, 5),
    }
    arrays = _checked(path, content, shapes)
    faces = _indices(path, "f", arrays["f"], len(arrays["v_template"]))
    parents = arrays["kintree_table"][0].astype(np.uint32).astype(np.int32)  # -1 may be stored as 2 ** 32 - 1
    if tuple(parents) != _PARENTS:
        raise InputError(f"{path}: the joints' parents are {parents.tolist()}, expected {list(_PARENTS)}")
    if np.abs(arrays["weights"].sum(axis=1) - 1).max() > 1e-3:
        raise InputError(f"{path}: the skinning weights of some vertices do not add up to 1")
    names = {
        "v_template": "v_template",
        "shapedirs": "shapedirs",
        "posedirs": "posedirs",
        "joint_regressor": "J_regressor",
        "skinning_weights": "weights",
    }
    mouth = np.asarray(content.get("mouth_faces", ()), np.int32).reshape(-1)
    return {
        **{ours: arrays[theirs].astype(np.float32) for ours, theirs in names.items()},
        "faces": faces,
        "parents": parents,
        "mouth_faces": _indices(path, "mouth_faces", mouth, len(faces)),
        "source": "builtin" if content.get("source") == "builtin" else "flame",
    }


def _write_model(path: Path, fields: Mapping[str, Any]) -> None:
    kintree = np.stack([fields["parents"].astype(np.int64), np.arange(5)]).astype(np.uint32)
    content = {
        "v_template": fields["v_template"],
        "f": fields["faces"].astype(np.uint32),
        "shapedirs": fields["shapedirs"],
        "posedirs": fields["posedirs"],
        "J_regressor": scipy.sparse.csc_matrix(fields["joint_regressor"]),
        "kintree_table": kintree,
        "weights": fields["skinning_weights"],
        "mouth_faces": fields["mouth_faces"],
        "source": fields["source"],
    }
    with atomic_file(path) as file:
        pickle.dump(content, file, protocol=4)


_EMBEDDING = {
    "static_landmark_faces": ("static_lmk_faces_idx", (51,)),
    "static_landmark_weights": ("static_lmk_bary_coords", (51, 3)),
    "dynamic_landmark_faces": ("dynamic_lmk_faces_idx", (79, 17)),
    "dynamic_landmark_weights": ("dynamic_lmk_bary_coords", (79, 17, 3)),
    "full_landmark_faces": ("full_lmk_faces_idx", (1, 68)),
    "full_landmark_weights": ("full_lmk_bary_coords", (1, 68, 3)),
}
"""Name and shape in the file of each field."""


def _read_landmark_embedding(path: Path) -> Fields:
    content = load_object_npy(_present(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected the dictionary of a landmark embedding")
    arrays = _checked(path, content, dict(_EMBEDDING.values()))
    fields = {}
    for field, (name, _) in _EMBEDDING.items():
        array = arrays[name][0] if field.startswith("full") else arrays[name]
        fields[field] = array.astype(np.int32 if field.endswith("faces") else np.float32)
    return fields


def _write_landmark_embedding(path: Path, fields: Mapping[str, Any]) -> None:
    content = np.array({name: fields[field].reshape(shape) for field, (name, shape) in _EMBEDDING.items()}, object)
    with atomic_file(path) as file:
        np.save(file, content, allow_pickle=True)


def _read_head_template(path: Path) -> Fields:
    mesh = read_textured_mesh(_present(path))
    return {"uv": mesh.uv, "uv_faces": mesh.uv_faces, "template_faces": mesh.faces}


def _read_uv_face_eye_mask(path: Path) -> Fields:
    image = cv2.imdecode(np.frombuffer(_present(path).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: not a picture that can be decoded; expected a PNG")
    red = image if image.ndim == 2 else image[..., 2]
    if red.shape != (_UV_SIZE, _UV_SIZE) or red.dtype != np.uint8:
        raise InputError(f"{path}: {red.shape[1]} x {red.shape[0]} {red.dtype}, expected {_UV_SIZE} x {_UV_SIZE} uint8")
    return {"uv_face_eye_mask": (red / 255).astype(np.float32)}


def _read_fixed_displacement(path: Path) -> Fields:
    array = load_object_npy(_present(path))
    arrays = _checked(path, {"the array": array}, {"the array": (_UV_SIZE, _UV_SIZE)})
    return {"fixed_displacement": arrays["the array"].astype(np.float32)}


def _read_albedo_file(path: Path) -> Fields:
    mean, basis = read_albedo(_present(path))
    return {"albedo_mean": mean, "albedo_basis": basis}


READERS: Mapping[str, Callable[[Path], Fields]] = {
    MODEL: _read_model,
    LANDMARK_EMBEDDING: _read_landmark_embedding,
    HEAD_TEMPLATE: _read_head_template,
    UV_FACE_EYE_MASK: _read_uv_face_eye_mask,
    FIXED_DISPLACEMENT: _read_fixed_displacement,
    ALBEDO: _read_albedo_file,
}
"""What reads each file; raises an `InputError` that names the file and all that is wrong with it."""


def _present(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def _checked(
    path: Path, content: Mapping[str, Any], shapes: Mapping[str, tuple[int | str, ...]]
) -> dict[str, np.ndarray]:
    """Returns the named entries as dense arrays; a size given as text may be any."""
    missing = [name for name in shapes if name not in content]
    problems = [f"lacks {', '.join(missing)}"] if missing else []
    arrays = {}
    for name, shape in shapes.items():
        if name in missing:
            continue
        value = content[name]
        found = tuple(np.shape(value)) if not scipy.sparse.issparse(value) else value.shape
        if len(found) != len(shape) or any(a != b for a, b in zip(found, shape, strict=True) if isinstance(b, int)):
            problems.append(f"{name} is {_size(found)}, expected {_size(shape)}")
            continue
        arrays[name] = value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)
        if arrays[name].dtype.kind not in "iuf":
            problems.append(f"{name} holds {arrays[name].dtype}, expected numbers")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        raise InputError(f"{path}: {', '.join(problems)}")
    return arrays


def _size(shape: tuple[int | str, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single value"


def _indices(path: Path, name: str, values: np.ndarray, count: int) -> np.ndarray:
    if not _within(values, count):
        raise InputError(f"{path}: {name} points outside the {count} it may point to")
    return values.astype(np.int32)


def _within(indices: np.ndarray, count: int) -> bool:
    return not indices.size or bool(0 <= indices.min() <= indices.max() < count)
