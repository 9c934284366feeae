"""Published code dicts: a folder with one pickle a frame, `%06d.pkl`, as NED and the code built on it keep them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.paths import is_litter
from asccl_jax.work import write_atomically
from data_prep.head_fit.safe_pickle import load_pickle

__all__ = ["read_published_codes", "write_published_codes"]

_REQUIRED = ("shape", "exp", "pose", "cam")
_WITH_LEADING_1 = (*_REQUIRED, "tex", "light", "detail")
_OLD_PROTOCOL = 2


def write_published_codes(directory: Path, codes: CodeDict) -> None:
    """Writes one pickle a frame, named by frame index; each is there whole or not at all.

    Upstream's reader takes them, with any NumPy: arrays keep a leading axis of 1, `tform` is the 3x3 matrix (which
    scikit-image's `warp` accepts in the place of its own object).
    """
    directory.mkdir(parents=True, exist_ok=True)
    for position, index in enumerate(codes.frame_index.tolist()):
        fields = {name: getattr(codes, name) for name in _WITH_LEADING_1}
        content: dict[str, Any] = {
            name: np.float32(value[position : position + 1]) for name, value in fields.items() if value is not None
        }
        if codes.tform is not None:
            content["tform"] = codes.tform[position].astype(np.float64)
        if codes.original_size is not None:
            content["original_size"] = codes.original_size
        write_atomically(directory / f"{index:06d}.pkl", _dumped(content))


def read_published_codes(directory: Path) -> CodeDict:
    """Returns the code dict of a folder; frame indices are the files' names.

    Nothing that a pickle names is run (see `safe_pickle`).

    Raises:
      InputError: No such folder, no pickles in it, one that is unsafe, damaged, or lacks fields.
    """
    found = directory.glob("*.pkl") if directory.is_dir() else ()
    files = sorted(file for file in found if not is_litter(file.name))
    if not files:
        raise InputError(f"{directory}: no code dicts; expected a folder with 000000.pkl, 000001.pkl, ...")
    strange = [file.name for file in files if not file.stem.isdecimal()]
    if strange:
        raise InputError(f"{directory}: {', '.join(strange[:4])} name no frame; expected 000000.pkl, 000001.pkl, ...")
    frames = [_read_frame(file) for file in files]
    kinds = {tuple(sorted(frame)) for frame in frames}
    if len(kinds) != 1:
        raise InputError(f"{directory}: frames hold different fields: {' and '.join(map(str, sorted(kinds)[:2]))}")
    sizes = {frame.pop("original_size", None) for frame in frames}
    if len(sizes) != 1:
        raise InputError(f"{directory}: frames of different sizes: {sorted(map(str, sizes))}")
    try:
        stacked: dict[str, Any] = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
        return CodeDict(np.array([int(file.stem) for file in files]), **stacked, original_size=sizes.pop())
    except (InputError, ValueError) as error:
        raise InputError(f"{directory}: {error}") from error


def _read_frame(file: Path) -> dict[str, Any]:
    content = load_pickle(file)
    missing = [name for name in _REQUIRED if not isinstance(content, dict) or name not in content]
    if missing:
        raise InputError(f"{file}: no DECA code dict, lacks {', '.join(missing)}")
    frame: dict[str, Any] = {
        name: np.float32(np.asarray(content[name])[0]) for name in _WITH_LEADING_1 if name in content
    }
    if "tform" in content:
        frame["tform"] = np.asarray(content["tform"], np.float64)
    if "original_size" in content:
        width, height = (int(side) for side in content["original_size"])
        frame["original_size"] = (width, height)
    return frame


def _dumped(content: dict[str, Any]) -> bytes:
    """A pickle that NumPy 1 reads as well: NumPy 2 moved the constructor of arrays, which old pickles name in text."""
    now, then = (f"cnumpy.{core}.multiarray\n_reconstruct\n".encode() for core in ("_core", "core"))
    return pickle.dumps(content, protocol=_OLD_PROTOCOL).replace(now, then)
