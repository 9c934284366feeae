"""Aligned frames straight from the published folders of a subject, in sub-folders of 50 frames or flat."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from asccl_jax.data.aligned_frames import (
    AlignedClips,
    AlignedFrame,
    RenderedClip,
    aligned_frame,
    decode_picture,
    find_runs,
)
from asccl_jax.data.growing_folder import file_facts
from asccl_jax.data.schema import UNLABELLED
from asccl_jax.errors import InputError
from asccl_jax.file_names import is_litter
from asccl_jax.geometry.face_box import mask_box

__all__ = ["FolderClips", "is_subject_folder"]

_EYES = "eye_landmarks_aligned"
_KINDS = ("faces_aligned", "masks_aligned", "nmfcs_aligned", "shapes_aligned", _EYES)
_EYE_ROWS = 14
_USUAL_MOUTH = np.array([[126.5, 174.0]])
"""Where the alignment's template has the middle of the mouth; for eye files without one, as test folders have them."""


def is_subject_folder(path: Path) -> bool:
    """Returns whether a folder is laid out as a subject's, with aligned pictures."""
    return all((path / kind).is_dir() for kind in ("nmfcs_aligned", "shapes_aligned"))


class FolderClips(AlignedClips):
    """The clips of one or several subjects: each sub-folder is one, "SUBJECT/000000"; a flat folder is all one.

    Args:
      folders: Of the subjects; each has faces, masks, NMFC, shapes and eye landmarks, aligned.
      image_size: Side of the pictures wanted, in pixels.
      held_out: Sub-folders of each subject, the last ones, that are for validation; at least one is left for training.
      fps: Frames a second, which the folders do not tell.
      cache_bytes: Memory for decoded frames.

    Raises:
      InputError: A folder is missing or not complete, or two have one name.
    """

    def __init__(
        self,
        folders: Sequence[Path | str],
        *,
        image_size: int = 256,
        held_out: int = 1,
        fps: float = 30.0,
        cache_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(image_size, cache_bytes=cache_bytes)
        subjects = [Path(folder) for folder in folders]
        names = [subject.resolve().name for subject in subjects]
        if not subjects or len(set(names)) < len(names):
            raise InputError(
                f"subjects {', '.join(names) or 'none'}: expected at least one folder, each of another name"
            )
        self.clips, self.left_out = {}, {}
        self._folders: dict[str, tuple[Path, str]] = {}
        for subject, name in zip(subjects, names, strict=True):
            sequences = _sequences(subject)
            training = max(len(sequences) - held_out, 1)
            for place, (sequence, frames) in enumerate(sequences.items()):
                clip = f"{name}/{sequence}" if sequence else name
                split = "train" if place < training else "validation"
                self.clips[clip] = RenderedClip(clip, name, UNLABELLED, "", split, fps, find_runs(np.array(frames)))
                self._folders[clip] = subject, sequence

    def facts(self, clip: str) -> list[Any]:
        """See `AlignedClips`."""
        subject, sequence = self._folders[clip]
        runs = self.entry(clip).runs
        # Of a flat folder with sub-folders beside it the latter count, too: work that was not needed, nothing stale.
        return [runs, *file_facts(*(subject / kind / sequence for kind in _KINDS))]

    def _load(self, clip: str, frame: int) -> AlignedFrame:
        entry = self.entry(clip)
        if not any(first <= frame <= last for first, last in entry.runs):
            raise InputError(f"clip {clip!r} has no frame {frame}")
        subject, sequence = self._folders[clip]
        image, mask, nmfc, shape = (
            _read_picture(subject / kind / sequence / f"{frame:06d}.png") for kind in _KINDS if kind != _EYES
        )
        for kind, picture in zip(_KINDS, (image, mask, nmfc, shape), strict=False):
            if picture.shape != (len(image), len(image), 3):
                raise InputError(
                    f"{subject / kind / sequence / f'{frame:06d}.png'}: {picture.shape[1]} x {picture.shape[0]} pixels,"
                    f" expected {len(image)} x {len(image)} as the face"
                )
        points = _read_points(subject / _EYES / sequence / f"{frame:06d}.txt")
        face = mask[:, :, 0] > 127
        return aligned_frame(
            image=image,
            nmfc_image=nmfc,
            shape_image=shape,
            mask=face,
            eye_points=np.trunc(points[:_EYE_ROWS]).astype(np.int64),
            mouth=points[_EYE_ROWS:] if len(points) > _EYE_ROWS else _USUAL_MOUTH * (len(image) / 256),
            face_box=mask_box(face, points[:_EYE_ROWS]),
            size=self.image_size,
        )


def _sequences(subject: Path) -> dict[str, list[int]]:
    """Frame numbers by sub-folder, "" for a flat folder; all kinds must have the same."""
    missing = [kind for kind in _KINDS if not (subject / kind).is_dir()]
    if missing:
        raise InputError(
            f"{subject}: no {', '.join(missing)}; expected the folder of one subject after alignment (a data set"
            " of `asccl reconstruct` needs no masks)"
        )
    found = {kind: _frames(subject / kind, ".txt" if kind == _EYES else ".png") for kind in _KINDS}
    first = found[_KINDS[0]]
    for kind, frames in found.items():
        odd = sorted(frames ^ first)
        if odd:
            place = "/".join(filter(None, odd[0]))
            raise InputError(
                f"{subject}: frame {place} and {len(odd) - 1} more are not in both {_KINDS[0]} and {kind};"
                " the folders must have the same frames"
            )
    if not first:
        raise InputError(f"{subject / _KINDS[0]}: no pictures; expected 000000.png, 000001.png, ...")
    grouped = itertools.groupby(sorted(first), key=lambda frame: frame[0])
    return {sequence: sorted(int(number) for _, number in frames) for sequence, frames in grouped}


def _frames(folder: Path, suffix: str) -> set[tuple[str, str]]:
    """Sub-folder ("" for none) and name of each file."""
    files: Iterable[Path] = itertools.chain(folder.glob(f"*{suffix}"), folder.glob(f"*/*{suffix}"))
    kept = (path for path in files if not is_litter(path.name))
    names = {(path.parent.name if path.parent != folder else "", path.stem) for path in kept}
    strange = sorted(name for _, name in names if not (name.isdecimal() and len(name) == 6))
    if strange:
        raise InputError(f"{folder}: {', '.join(strange[:3])} name no frame; expected 000000{suffix}, ...")
    return names


def _read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    try:
        return decode_picture(path.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(f"{path}: {error}") from error


def _read_points(path: Path) -> Float[np.ndarray, "n 2"]:
    try:
        points = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a list of points ({error})") from error
    if points.shape[1] != 2 or len(points) < _EYE_ROWS or not np.isfinite(points).all():
        raise InputError(f"{path}: {points.shape[0]} x {points.shape[1]} numbers, expected at least 14 points x, y")
    return points
