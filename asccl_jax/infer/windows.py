"""Overlapping windows of a clip, and the weighted sum that makes a clip of what came out of them."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.errors import InputError

__all__ = ["at_least_a_window", "consecutive_runs", "gaussian_weights", "overlap_add", "sliding_windows"]


_SHORT_WINDOWS = {
    3: (64, 128),
    5: (16, 64, 96),
    7: (8, 28, 56, 72),
    9: (4, 13, 30, 51, 60),
}
"""OpenCV's kernels of few frames, up to the middle one, in parts of 256; it has them as tables, not by the formula."""


@functools.lru_cache
def gaussian_weights(window: int) -> Float[np.ndarray, " t"]:
    """Returns how much each frame of a window counts where windows overlap; the sum is 1.

    OpenCV's Gaussian kernel, which upstream takes: sampled about the middle of the window with a standard deviation of
    0.3 ((window - 1) / 2 - 1) + 0.8 frames, but both middle frames of an even window count as the peak itself, and odd
    windows of up to 9 frames have rounded weights.

    >>> gaussian_weights(10)[:3].round(3)
    array([0.011, 0.036, 0.086], dtype=float32)
    """
    if window in _SHORT_WINDOWS:
        half = _SHORT_WINDOWS[window]
        weights = np.array([*half, *half[-2::-1]], np.float64)
    else:
        middle = (window - 1) / 2
        width = 0.3 * (middle - 1) + 0.8
        distances = np.abs(np.arange(window) - middle)
        distances[distances < 1] = 0
        weights = np.exp(-(distances**2) / (2 * width**2))
    result = (weights / weights.sum()).astype(np.float32)
    result.flags.writeable = False  # shared by all callers
    return result


def at_least_a_window(frames: Float[np.ndarray, "n c"], window: int) -> Float[np.ndarray, "_ c"]:
    """Returns the frames, the last one repeated until they fill a window.

    Upstream: `manipulator/test.py` fails on a clip shorter than a window.

    Raises:
      InputError: There is no frame.
    """
    if not len(frames):
        raise InputError("coefficients of 0 frames: expected at least one frame")
    return np.pad(frames, ((0, max(0, window - len(frames))), (0, 0)), mode="edge")


def sliding_windows(frames: Float[np.ndarray, "n c"], window: int) -> Float[np.ndarray, "w t c"]:
    """Returns every window of consecutive frames, in order; views of the frames, which fill one window at least."""
    return np.lib.stride_tricks.sliding_window_view(frames, window, axis=0).swapaxes(1, 2)


def overlap_add(
    windows: Float[np.ndarray, "w t c"], *, tail: Float[np.ndarray, "t c"] | None = None
) -> Float[np.ndarray, "n c"]:
    """Returns the clip of n = w + t - 1 frames whose sliding windows were generated one by one.

    Each frame is the sum over the windows that hold it, weighted by `gaussian_weights`. The t - 1 frames at either end
    lie in fewer windows, whose weights do not sum to 1: they are those of the first window, and then of the last one.

    Args:
      windows: Generated windows, one starting at each frame.
      tail: Window that the last frames are taken from; None takes the last of `windows`.
    """
    count, length, _ = windows.shape
    clip = np.zeros((count + length - 1, windows.shape[2]), windows.dtype)
    weights = gaussian_weights(length).astype(windows.dtype)
    # From the last frame of the windows to the first: every frame then adds its windows in their order, as upstream.
    for place in reversed(range(length)):
        clip[place : place + count] += windows[:, place] * weights[place]
    if length > 1:
        clip[: length - 1] = windows[0, :-1]
        clip[1 - length :] = (windows[-1] if tail is None else tail)[1:]
    return clip


def consecutive_runs(frame_index: Int[np.ndarray, " n"]) -> list[slice]:
    """Returns the stretches of a clip without a missing frame.

    >>> consecutive_runs(np.array([3, 4, 5, 9]))
    [slice(0, 3, None), slice(3, 4, None)]
    """
    breaks = (np.flatnonzero(np.diff(frame_index) != 1) + 1).tolist()
    return [slice(first, last) for first, last in zip([0, *breaks], [*breaks, len(frame_index)], strict=True)]
