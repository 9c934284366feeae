"""The texture model: FLAME's from its file, or the built-in head's from the paint of a few synthetic people."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from jaxtyping import Float
from numpy.lib import format as npy_format

from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file
from data_prep.synthetic.paint import paint_skin
from data_prep.synthetic.people import sample_person
from DECA_torch_bridge.uv_charts import SKIN_BOX

__all__ = ["ALBEDO_SIZE", "built_in_albedo", "read_albedo", "write_albedo"]

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
