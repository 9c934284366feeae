"""FLAME's and DECA's own files of a head: each read and checked on its own, all of them together, and written."""

from __future__ import annotations

import dataclasses
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from numpy.lib import format as npy_format
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file, write_atomically
from data_prep.head_fit.safe_pickle import load_object_npy, load_pickle
from data_prep.synthetic.head import SyntheticHead
from data_prep.synthetic.paint import paint_skin
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.skin_surface import ramp

__all__ = [
    "ALBEDO",
    "ALBEDO_SIZE",
    "DECA_MODEL",
    "FIXED_DISPLACEMENT",
    "HEAD_TEMPLATE",
    "LANDMARK_EMBEDDING",
    "MODEL",
    "READERS",
    "SKIN_BOX",
    "UV_FACE_EYE_MASK",
    "TexturedMesh",
    "built_in_albedo",
    "displaced_faces",
    "face_mask",
    "read_albedo",
    "read_flame_files",
    "read_textured_mesh",
    "survey",
    "uv_charts",
    "write_albedo",
    "write_flame_files",
    "write_textured_mesh",
]

# Triangle meshes with texture coordinates in Wavefront's text format (.obj).


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


# Texture coordinates of the built-in head: every piece of the mesh on its own rectangle, none over another.

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in texture coordinates."""

_MARGIN = 0.008
_SKIN_FLOOR = 0.20
_TILES_PER_ROW, _TILE_ROWS = 8, 3
_FOREHEAD_M = 0.045

SKIN_BOX: Box = (_MARGIN, _SKIN_FLOOR + _MARGIN, 1 - _MARGIN, 1 - _MARGIN)
"""Where the skin lies; the other pieces lie below it."""


def uv_charts(faces: Int[np.ndarray, "f 3"], paint: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Returns texture coordinates, one per vertex.

    Every piece of the head is a grid of vertices, and its chart is that grid, which spends the texture where the mesh
    is fine: on the face. The slits of mouth and lids are closed in the chart; nothing lies in them. No chart is
    mirrored: triangles turn the same way in the texture as they do seen from outside.

    Args:
      faces: Triangles of the head; its first piece is the skin.
      paint: Paint coordinates, which on the skin are the place on its grid, 0..1, downward.
    """
    piece = _pieces(faces)
    uv = np.zeros((len(piece), 2))
    skin = piece == 0
    uv[skin] = _placed(paint[skin], SKIN_BOX)
    for number in range(1, piece.max() + 1):
        vertices = np.flatnonzero(piece == number)
        # The first cell of a grid of c columns has corners 0, c and c + 1; the other way round if seen from behind.
        cell = faces[np.argmax(piece[faces[:, 0]] == number)] - vertices[0]
        columns = int(cell.max()) - 1
        row, column = np.divmod(vertices - vertices[0], columns)
        across = column / (columns - 1) if cell[0] == 0 else 1 - column / (columns - 1)
        uv[vertices] = _placed(np.stack([across, row / row[-1]], -1), _tile(number - 1))
    return uv.astype(np.float32)


def face_mask(uv: Float[np.ndarray, "n 2"], faces: Int[np.ndarray, "g 3"], *, size: int) -> Float[np.ndarray, "s s"]:
    """Returns 1 inside the given triangles in texture space, falling to 0 toward their edge, in steps of 1 / 255."""
    corners = np.stack([uv[:, 0], 1 - uv[:, 1]], -1)[faces] * size - 0.5
    inside = np.zeros((size, size), np.uint8)
    for corner in corners:
        cv2.fillConvexPoly(inside, np.round(corner * 16).astype(np.int32), 1, shift=4)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    return (np.round(255 * ramp(depth, 1.0, 0.03 * size)) / 255).astype(np.float32)


def displaced_faces(head: SyntheticHead) -> Int[np.ndarray, " g"]:
    """Returns the triangles that may carry fine displacements: face and forehead, but not beside lids and lips.

    Along the slits two surfaces meet in one place of the texture, where no displacement is right for both.
    """
    centre = head.v_template[head.f].mean(axis=1)
    face = np.zeros(len(head.f), bool)
    face[head.face_faces] = True
    top = centre[face, 1].max()
    forehead = (centre[:, 1] > top - _FOREHEAD_M) & (centre[:, 1] < top + _FOREHEAD_M) & (centre[:, 2] > 0.02)
    skin = _pieces(head.f)[head.f[:, 0]] == 0
    rows, columns = head.grid_shape
    copies = np.arange(len(head.v_template)) >= rows * columns
    shared = np.unique(head.uv[copies & (_pieces(head.f) == 0)], axis=0)
    slit = (head.uv[:, None] == shared).all(axis=-1).any(axis=1)
    return np.flatnonzero(skin & (face | forehead) & ~slit[head.f].any(axis=1))


def _pieces(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, " n"]:
    """Number of the connected piece of each vertex, in the order of their first vertices."""
    count = int(faces.max()) + 1
    joined = coo_matrix((np.ones(2 * len(faces)), (faces[:, [0, 0]].ravel(), faces[:, [1, 2]].ravel())), (count, count))
    return np.asarray(connected_components(joined, directed=False)[1], dtype=np.int32)


def _placed(grid: Float[np.ndarray, "k 2"], box: Box) -> Float[np.ndarray, "k 2"]:
    """Returns places on a grid (0..1, downward) as places in a box of the texture (upward)."""
    left, bottom, right, top = box
    return np.stack([left + (right - left) * grid[:, 0], top - (top - bottom) * grid[:, 1]], -1)


def _tile(number: int) -> Box:
    """Box of a piece in the strip below the skin."""
    if number >= _TILES_PER_ROW * _TILE_ROWS:
        raise ValueError(f"the head has more pieces than the {_TILES_PER_ROW * _TILE_ROWS} places for them")
    row, column = divmod(number, _TILES_PER_ROW)
    width, height = 1 / _TILES_PER_ROW, _SKIN_FLOOR / _TILE_ROWS
    return (
        column * width + _MARGIN,
        row * height + _MARGIN,
        (column + 1) * width - _MARGIN,
        (row + 1) * height - _MARGIN,
    )


# The texture model: FLAME's from its file, or the built-in head's from the paint of a few synthetic people.

ALBEDO_SIZE = 256
"""Side of the texture that is drawn; FLAME's file has twice as much, of which every second texel is used."""

_USED_COMPONENTS = 50
_FILE_SIZE = 2 * ALBEDO_SIZE
_FILE_VALUES = _FILE_SIZE * _FILE_SIZE * 3

_PEOPLE = 14
_COMPONENTS = 8
_DETAIL = 128
_OTHER_PIECES = (0.55, 0.35, 0.33)


def built_in_albedo() -> tuple[Float[np.ndarray, "256 256 3"], Float[np.ndarray, "256 256 3 8"]]:
    """Returns mean and principal components (per standard deviation) of the skin of synthetic people.

    Colours are as displayed (gamma 2.2), 0..1, and what lies beside the skin has one colour.
    """
    skins = np.stack(
        [paint_skin(sample_person(seed), size=_DETAIL)[..., :3].clip(0, 1) ** (1 / 2.2) for seed in range(_PEOPLE)]
    ).reshape(_PEOPLE, -1)
    mean = skins.mean(axis=0)
    _, strength, modes = np.linalg.svd(skins - mean, full_matrices=False)
    components = modes[:_COMPONENTS] * (strength[:_COMPONENTS, None] / np.sqrt(_PEOPLE - 1))
    left, bottom, right, top = (round(edge * ALBEDO_SIZE) for edge in SKIN_BOX)
    textures = np.zeros((1 + _COMPONENTS, ALBEDO_SIZE, ALBEDO_SIZE, 3), np.float32)
    textures[0] = _OTHER_PIECES
    for texture, values in zip(textures, (mean, *components), strict=True):
        image = values.reshape(_DETAIL, _DETAIL, 3).astype(np.float32)
        texture[ALBEDO_SIZE - top : ALBEDO_SIZE - bottom, left:right] = cv2.resize(
            image, (right - left, top - bottom), interpolation=cv2.INTER_LINEAR
        )
    return textures[0], np.ascontiguousarray(np.moveaxis(textures[1:], 0, -1))


def read_albedo(path: Path) -> tuple[Float[np.ndarray, "256 256 3"], Float[np.ndarray, "256 256 3 k"]]:
    """Returns mean and components of FLAME's albedo file (BGR, 512 x 512), as DECA uses them: RGB, every second texel.

    Of the components, which take gigabytes, only the first 50 are kept, and only a slice of the file is in memory.

    Raises:
      InputError: Damaged, or of another size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in ("MU", "PC") if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise InputError(f"{path}: lacks {', '.join(missing)}")
            with archive.open("MU.npy") as member:
                mean = _texels(_columns(member, path, "MU", 1))
            with archive.open("PC.npy") as member:
                basis = _texels(_columns(member, path, "PC", _USED_COMPONENTS))
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged or not an .npz file: {error}; get the file again") from error
    return np.ascontiguousarray(mean[..., 0]), basis


def write_albedo(path: Path, mean: Float[np.ndarray, "256 256 3"], basis: Float[np.ndarray, "256 256 3 k"]) -> None:
    """Writes an albedo model in the format of FLAME's file."""

    def column(texels: Float[np.ndarray, "256 256 3 k"]) -> Float[np.ndarray, "values k"]:
        return texels[:, :, ::-1].repeat(2, axis=0).repeat(2, axis=1).reshape(_FILE_VALUES, -1)

    with atomic_file(path) as file:
        np.savez_compressed(file, MU=column(mean[..., None]).T, PC=column(basis))


def _texels(columns: Float[np.ndarray, "values k"]) -> Float[np.ndarray, "256 256 3 k"]:
    image = columns.reshape(_FILE_SIZE, _FILE_SIZE, 3, -1)
    return np.ascontiguousarray(image[::2, ::2, ::-1])


def _columns(member: IO[bytes], path: Path, name: str, most: int) -> Float[np.ndarray, "values k"]:
    """Returns the first columns of an array of an .npz file whose last axis (or only axis) is that of components."""
    read_header = (
        npy_format.read_array_header_1_0
        if npy_format.read_magic(member) == (1, 0)
        else npy_format.read_array_header_2_0
    )
    shape, in_columns, dtype = read_header(member)
    size = int(np.prod(shape))
    if size == 0 or size % _FILE_VALUES or dtype.kind != "f" or (in_columns and len(shape) != 2):
        raise InputError(
            f"{path}: {name} is {' x '.join(map(str, shape))} {dtype}, expected {_FILE_VALUES} numbers per component, a"
            f" texture of {_FILE_SIZE} x {_FILE_SIZE}"
        )
    count = size // _FILE_VALUES
    kept = min(count, most)
    if in_columns:
        content = member.read(_FILE_VALUES * kept * dtype.itemsize)
        return np.frombuffer(content, dtype).reshape(kept, _FILE_VALUES).T.astype(np.float32)
    result = np.empty((_FILE_VALUES, kept), np.float32)
    rows = _FILE_VALUES // 64
    for start in range(0, _FILE_VALUES, rows):
        content = member.read(rows * count * dtype.itemsize)
        result[start : start + rows] = np.frombuffer(content, dtype).reshape(rows, count)[:, :kept]
    return result


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
            f"{directory}: no complete head: {'; '.join(problems.values())}; `asccl head check {directory}` says"
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
