"""Long clips in windows that overlap, so that memory stays bounded and the seams do not show."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["join_windows", "split_windows"]

_LENGTH = 1200
_OVERLAP = 60


def split_windows(seen: Bool[np.ndarray, " t"], *, length: int = _LENGTH, overlap: int = _OVERLAP) -> list[slice]:
    """Returns windows that cover a clip, each with a frame with a face.

    Args:
      seen: Which frames have a face; at least one.
      length: Frames of a window; those without a face go to a neighbour.
      overlap: Frames that neighbours share.
    """
    frames, start = len(seen), 0
    windows: list[slice] = []
    for stop in [*range(length, frames, length - overlap), frames]:
        if seen[start:stop].any():
            windows.append(slice(start, stop))
            start = stop - overlap
    if windows[-1].stop < frames:  # what is left has no face of its own
        windows[-1] = slice(windows[-1].start, frames)
    return windows


def join_windows(parts: list[Float[np.ndarray, "_ ..."]], windows: list[slice]) -> Float[np.ndarray, "t ..."]:
    """Returns one array of the windows' results, faded into each other where they overlap."""
    joined = parts[0]
    for part, window in zip(parts[1:], windows[1:], strict=True):
        shared = len(joined) - window.start
        fade = (np.arange(shared) + 1) / (shared + 1)
        fade = fade.reshape(-1, *([1] * (part.ndim - 1)))
        seam = (1 - fade) * joined[window.start :] + fade * part[:shared]
        joined = np.concatenate([joined[: window.start], seam, part[shared:]])
    return joined
