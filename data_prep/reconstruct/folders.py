"""The published folder layout of one subject, as NED and the code built on it read and write it.

Only what a reconstruction knows is written: `images`, `full_frames`, `videos/*.txt` (boxes), `DECA`, `nmfcs`, `shapes`,
their aligned copies, `align_transforms`, `eye_landmarks`. Masks and masked faces need a face segmentation. Numbers run
on over all clips of the subject; `frames.csv` says which clip and frame each of them is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from asccl_jax.data.codes import CodeDict, join_codes
from asccl_jax.errors import InputError
from asccl_jax.head.eyes import MOUTH, eye_points
from asccl_jax.paths import is_litter
from data_prep.head_fit.published_codes import read_published_codes

__all__ = [
    "CROP_SIZE",
    "Subject",
    "eye_rows",
    "face_boxes",
    "frame_path",
    "is_subject",
    "read_subject",
    "stored_codes_folder",
    "subject_images",
]

CROP_SIZE = 256
"""Side of a subject's face crops in pixels."""

_MARGIN = 70
_WINDOW = 49
_ABOVE, _BELOW = 0.31, 0.0
"""How far MTCNN's box reaches beyond that of the landmarks, over its height; medians over eight clips."""

_SEQUENCE = 50
"""Frames of a sub-folder in training folders."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What a subject's folder holds.

    Attributes:
      numbers: Number of each frame.
      images: Face crops by number.
      nmfcs: NMFC images by number; empty where there are none.
      shapes: Shape images by number; likewise.
      codes: Code dicts, or None.
      align_transforms: From pixels of the crop to those of the aligned picture; None where there are none.
    """

    numbers: Int[np.ndarray, " t"]
    images: Mapping[int, Path]
    nmfcs: Mapping[int, Path]
    shapes: Mapping[int, Path]
    codes: CodeDict | None
    align_transforms: Float[np.ndarray, "t 2 3"] | None


def is_subject(path: Path) -> bool:
    """Returns whether a folder is laid out as a subject's."""
    return (path / "images").is_dir()


def subject_images(folder: Path, kind: str = "images", suffix: str = ".png") -> dict[int, Path]:
    """Returns the files of a folder by frame number, rising, from sub-folders too.

    Raises:
      InputError: There are none, two of one number, or names that are no numbers.
    """
    paths = sorted(path for path in (folder / kind).rglob(f"*{suffix}") if not is_litter(path.name))
    if not paths:
        raise InputError(f"{folder / kind}: no {suffix} files; expected 000000{suffix}, 000001{suffix}, ...")
    strange = [path.name for path in paths if not path.stem.isdecimal()]
    if strange:
        raise InputError(f"{folder / kind}: {', '.join(strange[:3])} name no frame; expected 000000{suffix}, ...")
    found: dict[int, Path] = {}
    for path in paths:
        if int(path.stem) in found:
            raise InputError(f"{path}: the same frame as {found[int(path.stem)]}; keep one of them")
        found[int(path.stem)] = path
    return dict(sorted(found.items()))


def read_subject(folder: Path) -> Subject:
    """Returns what a subject's folder holds, flat or in sub-folders of 50 frames.

    Raises:
      InputError: No such folder, no images in it, or files that are not what they should be.
    """
    if not is_subject(folder):
        raise InputError(f"{folder}: no images/ in it; expected the folder of one subject")
    images = subject_images(folder)
    numbers = np.array(list(images))
    others: dict[str, dict[int, Path]] = {}
    for kind in ("nmfcs", "shapes"):
        others[kind] = subject_images(folder, kind) if (folder / kind).is_dir() else {}
    transforms = None
    if (folder / "align_transforms").is_dir():
        files = subject_images(folder, "align_transforms", ".txt")
        missing = [number for number in images if number not in files]
        if missing:
            raise InputError(f"{folder / 'align_transforms'}: no {missing[0]:06d}.txt and {len(missing) - 1} more")
        transforms = np.stack([_read_transform(files[number]) for number in images])
    return Subject(numbers, images, others["nmfcs"], others["shapes"], stored_codes(folder), transforms)


def stored_codes_folder(folder: Path) -> Path | None:
    """Returns where the subject's code dicts lie, or None."""
    return next((path for path in [folder / "DECA"] if path.is_dir() and any(path.rglob("*.pkl"))), None)


def stored_codes(folder: Path) -> CodeDict | None:
    """Returns the subject's code dicts, or None where there are none.

    Raises:
      InputError: They are damaged, unsafe, or differ from one another.
    """
    where = stored_codes_folder(folder)
    if where is None:
        return None
    groups = sorted(path for path in where.iterdir() if path.is_dir() and any(path.glob("*.pkl"))) or [where]
    return join_codes([read_published_codes(group) for group in groups])


def frame_path(folder: Path, kind: str, number: int, suffix: str, *, sequences: bool) -> Path:
    """Returns a frame's file in one of a subject's folders.

    Args:
      folder: The subject's.
      kind: "images", "nmfcs", ...
      number: Of the frame.
      suffix: Ending of the name.
      sequences: Training folders, with a sub-folder for every 50 frames.
    """
    middle = Path(f"{number // _SEQUENCE:06d}") if sequences else Path()
    return folder / kind / middle / f"{number:06d}{suffix}"


def face_boxes(landmarks: Float[np.ndarray, "t 68 2"], size: tuple[int, int]) -> Int[np.ndarray, "t 4"]:
    """Returns the borders x0, y0, x1, y1 of a subject's face crops in the source frames.

    As published: a detector's box, its median over 49 frames, squared, with a margin, cut off at the frame. The
    detector's box is estimated from the landmarks here.

    Args:
      landmarks: Pixels of the source frame.
      size: Height and width of the frames.
    """
    from scipy.ndimage import median_filter

    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    height = high[:, 1] - low[:, 1]
    boxes = np.stack([low[:, 0], low[:, 1] - _ABOVE * height, high[:, 0], high[:, 1] + _BELOW * height], axis=1)
    window = min(_WINDOW, len(boxes))
    boxes = median_filter(boxes, size=(window - (window % 2 == 0), 1), mode="reflect")
    side = boxes[:, 3] - boxes[:, 1]
    centre = (boxes[:, 0] + boxes[:, 2]) / 2
    margin = _MARGIN * side / (CROP_SIZE - _MARGIN) / 2
    borders = np.stack(
        [centre - side / 2 - margin, boxes[:, 1] - margin, centre + side / 2 + margin, boxes[:, 3] + margin], axis=1
    )
    frame = np.array([size[1], size[0], size[1], size[0]])
    return np.clip(borders, 0, frame).astype(int)


def box_matrices(boxes: Int[np.ndarray, "t 4"]) -> Float[np.ndarray, "t 2 3"]:
    """Returns the matrices from pixels of the source frame to those of the crops."""
    scale = CROP_SIZE / (boxes[:, 2:] - boxes[:, :2])
    matrices = np.zeros((len(boxes), 2, 3))
    matrices[:, 0, 0], matrices[:, 1, 1] = scale.T
    matrices[:, :, 2] = (0.5 - boxes[:, :2]) * scale - 0.5
    return matrices


def _read_transform(path: Path) -> Float[np.ndarray, "2 3"]:
    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a matrix ({error})") from error
    if matrix.shape != (2, 3):
        raise InputError(f"{path}: shape {matrix.shape}, expected (2, 3)")
    return matrix


# The eye files of the published layout: contours and pupils of both eyes, and in training folders the mouth.


def eye_rows(
    image: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"], *, mouth: bool
) -> Float[np.ndarray, "n 2"]:
    """Returns the rows of an eye file: both contours, both pupils (whole pixels), and the mouth where asked for.

    Args:
      image: Face crop.
      landmarks: In pixels of the crop.
      mouth: Add landmarks 48..67.
    """
    points = eye_points(image, landmarks).astype(np.float64)
    return np.concatenate([points, landmarks[MOUTH]]) if mouth else points
