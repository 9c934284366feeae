"""How restless a video is: what of its landmarks and pictures changes from frame to frame other than steadily."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from asccl_jax.evals.lip_landmarks import inter_ocular

__all__ = ["landmark_jitter", "picture_jitter"]

_LEVELS = 255.0


def landmark_jitter(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, " moments"]:
    """Returns the mean second difference of the landmarks at every inner frame, in inter-ocular distances.

    |x(t - 1) - 2 x(t) + x(t + 1)|, averaged over the 68 points, over the distance of the eyes' outer corners in frame
    t. A face that moves steadily has none. Speech and the landmark finder itself give some: compare with that of the
    source at the same frame rate.

    Args:
      landmarks: Landmarks of consecutive frames; NaN where there is no face.

    Returns:
      Entry i belongs to frame i + 1; NaN where one of its three frames has no face; empty for fewer than three.
    """
    points = landmarks.astype(np.float64)
    moved = np.linalg.norm(points[:-2] - 2 * points[1:-1] + points[2:], axis=-1).mean(axis=1)
    size = inter_ocular(landmarks)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size == 0, np.nan, moved / size)


def picture_jitter(
    images: Iterable[UInt8[np.ndarray, "h w c"]], masks: Iterable[Bool[np.ndarray, "h w"]] | None = None
) -> Float[np.ndarray, " moments"]:
    """Returns the mean absolute second difference of the pictures at every inner frame, as a share of full scale.

    Light that rises steadily has none; flicker, whose every frame goes back, counts most. Only three pictures are in
    memory at a time.

    >>> bright = [np.full((2, 2, 3), level, np.uint8) for level in (0, 255, 0)]
    >>> picture_jitter(bright).tolist()
    [2.0]

    Args:
      images: Consecutive frames of one size.
      masks: Where each frame counts: a pixel counts where all three frames do; everywhere if None.

    Returns:
      Entry i belongs to frame i + 1; NaN where no pixel counts; empty for fewer than three frames.
    """
    seen: collections.deque[np.ndarray] = collections.deque(maxlen=3)
    counted: collections.deque[np.ndarray] = collections.deque(maxlen=3)
    shown = None if masks is None else iter(masks)
    jitter = []
    for image in images:
        seen.append(image.astype(np.int16))
        if shown is not None:
            counted.append(next(shown))
        if len(seen) == 3:
            difference = np.abs(seen[0] - 2 * seen[1] + seen[2])
            if shown is not None:
                difference = difference[np.logical_and.reduce(list(counted))]
            jitter.append(float(difference.mean()) / _LEVELS if difference.size else np.nan)
    return np.array(jitter, np.float64)
