"""How well an edited mouth follows the mouth it came from: distance, opening, correlation and lag of 68 landmarks."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Complex, Float, UInt8

from asccl_jax.errors import InputError
from asccl_jax.head.face_points import LIPS

__all__ = [
    "best_lag",
    "inter_ocular",
    "lag_frames",
    "landmark_jitter",
    "lip_landmark_distance",
    "mouth_correlation",
    "mouth_opening",
    "picture_jitter",
]

Landmarks = Float[np.ndarray, "t 68 2"]

_EYE_CORNERS = (36, 45)
"""Outer corners of the eyes: the right one, which is on the left of the picture, and the left one."""

_UPPER, _LOWER = slice(61, 64), slice(67, 64, -1)
"""Middle of the inner lips, each upper landmark with the one below it."""

_LEAST_FRAMES = 3
"""Fewer pairs always correlate by 1 or -1."""

_STILL = 1e-12


def inter_ocular(landmarks: Landmarks) -> Float[np.ndarray, " t"]:
    """Returns the distance of the outer corners of the eyes in each frame, in the unit of the landmarks."""
    right, left = _EYE_CORNERS
    points = landmarks.astype(np.float64)
    return np.linalg.norm(points[:, left] - points[:, right], axis=-1)


def lip_landmark_distance(
    source: Float[np.ndarray, "t 68 2"], fake: Float[np.ndarray, "u 68 2"]
) -> Float[np.ndarray, " t"]:
    """Returns how far the lips lie from those of the source, in inter-ocular distances, for each frame.

    Each face is first turned, scaled and shifted such that the outer corners of its eyes lie at 0 and 1: a head that
    is nearer, tilted or elsewhere in the picture costs nothing. The distance is the mean over the 20 landmarks of
    both lips. 0.1 is about six pixels of an aligned picture of 256. An emotion moves the lips too, so that the least
    distance is not the best fake: it tells methods apart that show the same emotion on the same clip.

    Args:
      source: Landmarks of the frames that were edited; NaN where there is no face.
      fake: Landmarks of the frames made of them, one for one.

    Returns:
      One distance a frame; NaN where one of the two has no face or its eyes are one point.

    Raises:
      InputError: The two differ in length.
    """
    _check_paired(len(source), len(fake), "landmarks")
    apart = np.abs(_between_eyes(source) - _between_eyes(fake))
    return np.mean(apart[:, LIPS], axis=1)


def mouth_opening(landmarks: Landmarks) -> Float[np.ndarray, " t"]:
    """Returns how far the inner lips are apart in their middle, in inter-ocular distances; NaN where no face is."""
    points = _between_eyes(landmarks)
    return np.mean(np.abs(points[:, _UPPER] - points[:, _LOWER]), axis=1)


def mouth_correlation(source: Float[np.ndarray, " t"], fake: Float[np.ndarray, " u"]) -> float:
    """Returns the correlation (Pearson) of two courses of mouth opening; NaN where one does not move.

    >>> round(mouth_correlation(np.array([0.0, 0.1, 0.3, 0.2]), np.array([0.1, 0.2, 0.4, 0.3])), 6)
    1.0

    Args:
      source: `mouth_opening` of the source; frames in which either is NaN do not count.
      fake: That of the fake.

    Raises:
      InputError: The two differ in length.
    """
    _check_paired(len(source), len(fake), "mouth openings")
    return _correlation(source.astype(np.float64), fake.astype(np.float64))


def lag_frames(source: Float[np.ndarray, " t"], fake: Float[np.ndarray, " u"], *, most: int = 10) -> int | None:
    """Returns by how many frames the fake is late: frame i + lag of the fake shows what frame i of the source shows.

    It is the shift at which the two courses of mouth opening correlate most (Pearson's coefficient of the frames that
    overlap, so that shifts of different overlap compare); the nearest to zero among equals. Negative: the fake runs
    ahead. The published pipeline's videos give -2: it loses their first two frames.

    >>> opening = np.sin(np.arange(40.0) ** 1.3)
    >>> lag_frames(opening[:-3], opening[3:])
    -3

    Args:
      source: `mouth_opening` of the source; frames in which either is NaN do not count.
      fake: That of the fake; its length may differ.
      most: Largest shift looked at, either way. No more than half of the shorter course is: of few frames some always
        agree by chance.

    Returns:
      The lag in frames; None where either mouth does not move, or there are too few frames.
    """
    found = best_lag(source, fake, most=most)
    return None if found is None else found[0]


def best_lag(
    source: Float[np.ndarray, " t"], fake: Float[np.ndarray, " u"], *, most: int = 10
) -> tuple[int, float] | None:
    """Returns the lag of `lag_frames`, and the correlation of mouths at it; arguments as there."""
    shorter = min(len(source), len(fake))
    reach = max(0, min(most, shorter // 2, shorter - _LEAST_FRAMES))
    agreement = {}
    for lag in sorted(range(-reach, reach + 1), key=abs):
        early, late = source[max(0, -lag) :], fake[max(0, lag) :]
        shared = min(len(early), len(late))
        correlation = _correlation(early[:shared].astype(np.float64), late[:shared].astype(np.float64))
        if not math.isnan(correlation):
            agreement[lag] = round(correlation, 12)  # rounding errors shall not decide between equals
    return max(agreement.items(), key=lambda entry: entry[1]) if agreement else None


def _between_eyes(landmarks: Landmarks) -> Complex[np.ndarray, "t 68"]:
    """Landmarks as x + iy in the frame whose 0 and 1 are the outer corners of the eyes."""
    points = landmarks.astype(np.float64) @ np.array([1, 1j])
    right, left = (points[:, [corner]] for corner in _EYE_CORNERS)
    with np.errstate(divide="ignore", invalid="ignore"):
        placed = (points - right) / (left - right)
    return np.where(left == right, np.nan, placed)


def _correlation(first: Float[np.ndarray, " t"], second: Float[np.ndarray, " t"]) -> float:
    known: Bool[np.ndarray, " t"] = np.isfinite(first) & np.isfinite(second)
    if known.sum() < _LEAST_FRAMES:
        return math.nan
    first, second = (values[known] - values[known].mean() for values in (first, second))
    # A course that stands still keeps rounding errors of its mean.
    if min(float(np.abs(values).max()) for values in (first, second)) < _STILL:
        return math.nan
    return float(first @ second) / math.sqrt(float(first @ first) * float(second @ second))


def _check_paired(source: int, fake: int, what: str) -> None:
    if source != fake:
        raise InputError(f"{what} of {source} source and {fake} fake frames: expected as many; pair them first")


# How restless a video is: what of its landmarks and pictures changes from frame to frame other than steadily.

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
