"""Landmarks of real clips on disk: one npz per clip, named SPEAKER_sSENTENCE_EMOTION_src or ..._to_EMOTION_METHOD."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError

__all__ = ["LandmarkClip", "read_clips", "read_landmarks"]

_KEYS = ("landmarks68", "lm68")
_NAME = re.compile(
    r"(?P<speaker>[^_]+)_s(?P<sentence>\w+?)_(?P<emotion>[a-z]+)(_to_(?P<target>[a-z]+))?_(?P<maker>\w+)"
)


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkClip:
    """A clip's landmarks and what its name says.

    Attributes:
      name: File name without ending.
      speaker: Who.
      emotion: What is seen: for an edited clip the emotion it was edited to.
      source: Whether it is real footage; else the output of a method.
      maker: "src" or the method.
      landmarks: Pixels; NaN without a face.
    """

    name: str
    speaker: str
    emotion: str
    source: bool
    maker: str
    landmarks: Float[np.ndarray, "t 68 2"]


def read_landmarks(path: Path) -> Float[np.ndarray, "t 68 2"]:
    """Returns the landmarks of an npz file, key `landmarks68` or `lm68`.

    Raises:
      InputError: No such file, or no landmarks in it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = next((key for key in _KEYS if key in archive), None)
            if key is None:
                raise ValueError(f"no array {' or '.join(_KEYS)}")
            landmarks = archive[key].astype(np.float64)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"landmark file {path}: {error}") from error
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2):
        raise InputError(f"landmark file {path}: shape {landmarks.shape}, expected (frames, 68, 2)")
    return landmarks


def read_clips(directory: Path) -> list[LandmarkClip]:
    """Returns the clips of a folder of npz files, or of its folder `landmarks68`, by name.

    Raises:
      InputError: No such files, or names that do not say speaker and emotion.
    """
    folder = directory / "landmarks68" if (directory / "landmarks68").is_dir() else directory
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise InputError(f"{directory}: no landmark files (*.npz, or landmarks68/*.npz)")
    clips = []
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        emotion = match and (match["target"] or match["emotion"])
        if match is None or emotion not in EMOTIONS:
            raise InputError(f"{path.name}: expected SPEAKER_sSENTENCE_EMOTION_src or ..._to_EMOTION_METHOD")
        source = match["target"] is None
        clips.append(
            LandmarkClip(path.stem, match["speaker"], str(emotion), source, match["maker"], read_landmarks(path))
        )
    return clips
