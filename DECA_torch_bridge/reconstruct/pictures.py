"""Pictures into other coordinates, and into files."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from asccl_jax.image.warping import inverse_affine, joined

__all__ = ["encode_png", "warped"]

_ENLARGES = 0.75
"""Scale above which plain interpolation does; below it the picture is averaged first, or it would alias."""


def warped(
    image: UInt8[np.ndarray, "h w 3"] | None,
    placement: Float[np.ndarray, "2 3"] | None,
    matrix: Float[np.ndarray, "2 3"],
    size: int,
    *,
    sharp: bool = False,
) -> UInt8[np.ndarray, "size size 3"]:
    """Returns a picture of the source frame in other coordinates; black outside, and where there is no picture.

    Args:
      image: Stored picture, or None.
      placement: From pixels of the source frame to those of the stored picture; None if they are the same.
      matrix: From pixels of the source frame to those wanted.
      size: Side of the picture wanted.
      sharp: Lanczos instead of bilinear interpolation.
    """
    if image is None:
        return np.zeros((size, size, 3), np.uint8)
    if placement is not None:
        matrix = joined(matrix, inverse_affine(placement))
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < _ENLARGES:
        height, width = image.shape[:2]
        shrunk = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
        ratio = np.array([shrunk[0] / width, shrunk[1] / height])
        shrinking = np.concatenate([np.diag(ratio), (ratio / 2 - 0.5)[:, None]], axis=1)
        matrix = joined(matrix, inverse_affine(shrinking))
    flags = cv2.INTER_LANCZOS4 if sharp else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=flags))


def encode_png(image: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]) -> bytes:
    """Returns a PNG file: RGB, or white where a mask is true."""
    stored = image.astype(np.uint8) * 255 if image.dtype == bool else image[..., ::-1]
    return cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
