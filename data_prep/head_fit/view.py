"""Which picture a head is drawn into: the crop it was estimated in, the source frame, or any frame aligned with it."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.drawing_rules import CROP_SIZE

__all__ = ["View", "aligned_view", "crop_view", "source_view"]


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A picture per frame.

    Attributes:
      size: Height and width in pixels.
      placement: For each frame, the matrix from pixel positions of the 224-pixel crop to those of the picture, pixels
        counted from the middle of the first; a similarity.
    """

    size: tuple[int, int]
    placement: Float[np.ndarray, "t 2 3"]


def crop_view(codes: CodeDict, size: int = CROP_SIZE) -> View:
    """Returns the view of the crop itself, scaled so that it fills a square picture."""
    scale = size / CROP_SIZE
    matrix = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
    return View((size, size), np.repeat(matrix[None], len(codes), axis=0))


def source_view(codes: CodeDict) -> View:
    """Returns the view of the frames that the codes were estimated from.

    Raises:
      InputError: The code dict does not say which they were.
    """
    if codes.tform is None or codes.original_size is None:
        raise InputError("code dict: no tform or no original_size, so where its crops lie in the source is not known")
    width, height = codes.original_size
    return View((height, width), np.linalg.inv(codes.tform.astype(np.float64))[:, :2])


def aligned_view(codes: CodeDict, matrices: Float[np.ndarray, "t 2 3"], size: int | tuple[int, int] = 256) -> View:
    """Returns the view of source frames after an alignment.

    Args:
      codes: Code dict that knows its source frames.
      matrices: From pixel positions of the source frame to those of the aligned one (a similarity, as
        `cv2.warpAffine` takes it without WARP_INVERSE_MAP).
      size: Side of the aligned frame, or its height and width.

    Raises:
      InputError: The code dict does not say where its crops lie in the source, or the numbers of frames differ.
    """
    if len(matrices) != len(codes):
        raise InputError(f"alignment: {len(matrices)} matrices for {len(codes)} frames, expected one each")
    to_source = np.concatenate(
        [source_view(codes).placement, np.tile(np.array([0.0, 0.0, 1.0]), (len(codes), 1, 1))], axis=1
    )
    return View((size, size) if isinstance(size, int) else size, matrices @ to_source)
