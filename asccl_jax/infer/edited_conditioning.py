"""Conditioning pictures of an edited clip, as `asccl edit-conditioning` leaves them in a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from asccl_jax.data.aligned_frames import AlignedFrame, decode_picture
from asccl_jax.errors import InputError

__all__ = ["STREAMS", "check_edit", "with_edit"]

STREAMS = {"nmfc": "nmfc_image", "shape": "shape_image", "eyes": "eyes_image"}
"""Sub-folder -> field of the frame."""


def with_edit(frame: AlignedFrame, folder: Path, number: int) -> AlignedFrame:
    """Returns a frame with the conditioning pictures of an edit; the rest is as it was.

    Args:
      frame: Source frame; the pictures are brought to its size.
      folder: Holds `nmfc/%06d.png`, `shape/%06d.png` and `eyes/%06d.png`.
      number: Number of the frame.

    Raises:
      InputError: A picture is missing or damaged.
    """
    size = len(frame.image)
    pictures = {field: _read(folder / name / f"{number:06d}.png", size) for name, field in STREAMS.items()}
    return dataclasses.replace(frame, **pictures)  # type: ignore[arg-type]


def check_edit(folder: Path) -> None:
    """Refuses a folder that does not hold an edit, with `InputError`."""
    missing = [name for name in STREAMS if not (folder / name).is_dir()]
    if missing:
        raise InputError(
            f"{folder}: no folder {', '.join(missing)} in it; draw the edit with `asccl edit-conditioning`"
        )


def _read(path: Path, size: int) -> np.ndarray:
    try:
        image = decode_picture(path.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(f"{path}: no readable picture ({error}); draw the edit again") from error
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
