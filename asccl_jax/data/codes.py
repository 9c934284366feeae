"""Code dicts: what DECA or the landmark fitter says about each frame of a clip, and the file they are kept in.

The npz file holds the fields of `CodeDict` under their own names, and `format`. Published code dicts, one pickle a
frame, are read and written by the DECA bridge.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file

__all__ = ["FORMAT", "CodeDict", "join_codes"]

FORMAT = "asccl-codes-1"

# Shape of one frame of each field; None is any size. Fields of `_OPTIONAL` may be None.
_FRAME_SHAPES: dict[str, tuple[int | None, ...]] = {
    "frame_index": (),
    "shape": (None,),
    "exp": (None,),
    "pose": (6,),
    "cam": (3,),
    "tex": (None,),
    "light": (9, 3),
    "detail": (None,),
    "tform": (3, 3),
}
_OPTIONAL = ("tex", "light", "detail", "tform")


@no_type_check  # checks itself, with words a user understands
@dataclasses.dataclass(frozen=True, eq=False)
class CodeDict:
    """Coefficients of t frames, in the published names.

    Attributes:
      frame_index: Number of each frame in the source video, from 0, ascending; frames may be missing in between.
      shape: Identity coefficients.
      exp: Expression coefficients.
      pose: Axis-angle rotations, radians: head (3), jaw (3). `pose[:, 3]` opens the mouth.
      cam: Scale, tx, ty of the orthographic camera, which looks at the crop (see the bridge).
      tex: Texture coefficients; None where no texture was estimated.
      light: Nine spherical harmonics for red, green and blue; None where no light was estimated.
      detail: Code of the detail decoder; None where there is none.
      tform: Homogeneous matrix from pixel positions of the source frame to those of the 224-pixel crop, pixels counted
        from the middle of the first; None if the crop is the frame.
      original_size: Width and height of the source frames in pixels; None if not known.
    """

    frame_index: Int[np.ndarray, " t"]
    shape: Float[np.ndarray, "t s"]
    exp: Float[np.ndarray, "t e"]
    pose: Float[np.ndarray, "t 6"]
    cam: Float[np.ndarray, "t 3"]
    tex: Float[np.ndarray, "t k"] | None = None
    light: Float[np.ndarray, "t 9 3"] | None = None
    detail: Float[np.ndarray, "t d"] | None = None
    tform: Float[np.ndarray, "t 3 3"] | None = None
    original_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        problems = _problems({name: getattr(self, name) for name in _FRAME_SHAPES})
        if problems:
            raise InputError(f"code dict: {'; '.join(problems)}")

    def __len__(self) -> int:
        return len(self.frame_index)

    def __getitem__(self, frames: slice | Sequence[int] | Int[np.ndarray, " u"]) -> CodeDict:
        """Returns the code dict of some of the frames, by position (not by frame index)."""
        chosen: dict[str, Any] = {name: value[frames] for name, value in self._arrays().items()}
        return dataclasses.replace(self, **chosen)

    def edited(self, exp: Float[np.ndarray, "t e"], jaw_opening: Float[np.ndarray, " t"]) -> CodeDict:
        """Returns the same frames with another expression, as the manipulator gives it; all else is the source's.

        Args:
          exp: Expression coefficients.
          jaw_opening: First component of the jaw's rotation, radians.
        """
        pose = self.pose.copy()
        pose[:, 3] = jaw_opening
        return dataclasses.replace(self, exp=np.asarray(exp, np.float32), pose=pose)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an npz file, whole or not at all; fields that are None are left out."""
        fields: dict[str, Any] = self._arrays()
        if self.original_size is not None:
            fields["original_size"] = np.array(self.original_size, np.int64)
        with atomic_file(Path(path)) as file:
            np.savez_compressed(file, format=np.array(FORMAT), **fields)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CodeDict:
        """Returns a saved code dict.

        Raises:
          InputError: No such file, a damaged one, or fields that are missing or of a wrong shape; all of them named.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected a code dict (.npz)")
        try:
            # Opened here: NumPy leaves a file open that turns out to be damaged.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                fields = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: damaged or no npz file ({error}); make it again with `asccl data reconstruct`"
            ) from error
        found = str(fields.pop("format", "none"))
        if found != FORMAT:
            raise InputError(
                f"{path}: format {found!r}, expected {FORMAT!r}; make it again with `asccl data reconstruct`"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(fields.keys() - known)
        missing = [name for name in _FRAME_SHAPES if name not in fields and name not in _OPTIONAL]
        if unknown or missing:
            raise InputError(f"{path}: missing fields {missing or 'none'}, unknown fields {unknown or 'none'}")
        if "original_size" in fields:
            width, height = fields.pop("original_size").tolist()
            fields["original_size"] = (width, height)
        try:
            return cls(**fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def _arrays(self) -> dict[str, np.ndarray]:
        named = {name: getattr(self, name) for name in _FRAME_SHAPES}
        return {name: value for name, value in named.items() if value is not None}


def join_codes(parts: Sequence[CodeDict]) -> CodeDict:
    """Returns the code dict of all parts' frames, in their order; the parts hold the same fields.

    Raises:
      InputError: No part, or parts with different fields.
    """
    kinds = {tuple(part._arrays()) for part in parts}
    if len(kinds) != 1:
        raise InputError(f"code dicts to join: {len(parts)} parts with {len(kinds)} kinds of fields, expected one kind")
    arrays = [part._arrays() for part in parts]
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in arrays]) for name in arrays[0]}
    return dataclasses.replace(parts[0], **joined)


def _problems(fields: dict[str, np.ndarray | None]) -> list[str]:
    index = fields["frame_index"]
    assert index is not None
    problems = []
    for name, value in fields.items():
        if value is None:
            if name not in _OPTIONAL:
                problems.append(f"{name} is missing")
            continue
        expected = _FRAME_SHAPES[name]
        same = len(value.shape) == len(expected) + 1 and all(
            size in (None, found) for size, found in zip(expected, value.shape[1:], strict=True)
        )
        if not same or len(value) != len(index):
            wanted = ", ".join(["any" if size is None else str(size) for size in expected])
            problems.append(f"{name} has shape {value.shape}, expected ({len(index)}, {wanted})")
        elif value.dtype.kind not in ("iu" if name == "frame_index" else "f"):
            problems.append(f"{name} has type {value.dtype}")
        elif not np.isfinite(value).all():
            bad = np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(axis=1))
            problems.append(f"{name} is not finite in frame {index[bad[0]]} and {len(bad) - 1} more")
    if index.ndim == 1 and index.dtype.kind in "iu" and len(index) and (index[0] < 0 or (np.diff(index) <= 0).any()):
        problems.append("frame_index does not ascend from 0 or more")
    return problems
