"""Gives a clip's coefficients another emotion: styles of labels or reference clips, on overlapping windows."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from asccl_jax.errors import InputError
from asccl_jax.models.manipulator import Manipulator

__all__ = [
    "HIGHEST_INTENSITY",
    "Transition",
    "at_least_a_window",
    "consecutive_runs",
    "draw_latent",
    "gaussian_weights",
    "geometric_median",
    "label_styles",
    "manipulate_coefficients",
    "overlap_add",
    "reference_style",
    "sliding_windows",
    "window_styles",
    "with_intensity",
]

# The point with the least sum of distances to given points: a mean that outliers do not pull away.

_LONGEST = 10_000
"""Steps after which the point is taken as it is; far more than the tolerance ever asks for."""


def geometric_median(points: Float[np.ndarray, "n c"], *, tolerance: float = 1e-5) -> Float[np.ndarray, " c"]:
    """Returns the geometric median, computed in float64 and given back in the points' type.

    Weiszfeld's iteration from the mean, with the step of Vardi and Zhang (PNAS 97, 2000) where the iterate falls on
    points themselves.

    >>> geometric_median(np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]])).round(4)
    array([0., 0.])

    Args:
      points: At least one.
      tolerance: Largest last step.
    """
    median = points.mean(axis=0).astype(np.float64)
    exact = points.astype(np.float64)
    for _ in range(_LONGEST):
        moved = _step(exact, median)
        close = np.linalg.norm(moved - median) < tolerance
        median = moved
        if close:
            break
    return median.astype(points.dtype)


def _step(points: Float[np.ndarray, "n c"], median: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    distances = np.linalg.norm(points - median, axis=1)
    apart = distances > 0
    if not apart.any():
        return median
    closeness = 1 / distances[apart]
    target = (closeness / closeness.sum()) @ points[apart]
    here = np.count_nonzero(~apart)
    pull = np.linalg.norm(target - median) * closeness.sum()
    # Points at the iterate hold it back with a weight of one each.
    held = 0.0 if pull == 0 else min(1.0, here / pull)
    return (1 - held) * target + held * median


# Overlapping windows of a clip, and the weighted sum that makes a clip of what came out of them.

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


Coefficients: TypeAlias = Float[np.ndarray, "n c"]
Styles: TypeAlias = Float[np.ndarray, "m s"]
Transition: TypeAlias = Literal["steps", "linear"]

HIGHEST_INTENSITY = 1.5

_LARGEST_BATCH = 256
"""Windows computed at once: 40 MB of gates at the published size, whatever the clip's length."""

_SMALLEST_BATCH = 8


def manipulate_coefficients(
    manipulator: Manipulator,
    source: Coefficients,
    styles: Styles,
    *,
    compat: Literal["paper", "released"] = "paper",
    transition: Transition = "steps",
    frame_index: Int[np.ndarray, " n"] | None = None,
) -> Coefficients:
    """Returns a clip of any length with another expression; speech, by training, stays the source's.

    Every window of consecutive frames is generated, all of them in a few batches, and overlapping results are summed
    with Gaussian weights (`windows.overlap_add`).

    Args:
      manipulator: Trained networks.
      source: Jaw opening in radians, then expression coefficients, a row a frame.
      styles: One style, or several that follow each other along the clip.
      compat: "paper", or "released" for the published test programme: a window then has the style of its first frame
        instead of its middle (so that the last style comes too late or never), the last frames are made once more with
        the last style, and missing frames are not noticed. Upstream: `manipulator/test.py`.
      transition: "steps" gives each style an equal part of the clip; "linear" passes from the first, at the clip's
        start, through the others to the last, at its end. Only "steps" goes with "released".
      frame_index: Number of each frame in its video: windows never reach over missing ones. None: none is missing.

    Raises:
      InputError: Sizes that do not fit the networks, no frame, or numbers that are not finite.
    """
    _check_sizes(manipulator, source, styles)
    if compat == "released" and transition != "steps":
        raise InputError(f"transition {transition!r}: the released program knows steps only; leave it out")
    window, device_side = manipulator.settings.window, jax.device_put(manipulator)
    if compat == "released":
        frames = at_least_a_window(source, window)
        own = styles[_released_choice(len(frames) - window + 1, len(source), len(styles))]
        tail = _generate(device_side, frames[-window:], styles[-1:])[0]
        return overlap_add(_generate(device_side, frames, own), tail=tail)[: len(source)]
    runs = [slice(0, len(source))] if frame_index is None else consecutive_runs(frame_index)
    parts = []
    for run in runs:
        frames = at_least_a_window(source[run], window)
        own = window_styles(styles, run, len(source), window=window, transition=transition)
        parts.append(overlap_add(_generate(device_side, frames, own))[: run.stop - run.start])
    return np.concatenate(parts)


def label_styles(manipulator: Manipulator, emotions: Sequence[int], z: Float[np.ndarray, " z"]) -> Styles:
    """Returns the styles of emotions given by label, all from the same noise.

    Args:
      manipulator: Trained networks.
      emotions: Positions in `asccl_jax.data.schema.EMOTIONS`, one or more.
      z: Noise, see `draw_latent`.
    """
    noise = jnp.broadcast_to(jnp.asarray(z)[None], (len(emotions), len(z)))
    return np.asarray(_style_of_label(manipulator, noise, jnp.asarray(np.array(emotions, np.int32))))


def draw_latent(manipulator: Manipulator, key: Key[Array, ""]) -> Float[np.ndarray, " z"]:
    """Returns the standard normal noise that the mapping network makes styles of."""
    return np.asarray(jax.random.normal(key, (manipulator.settings.latent_size,)))


def reference_style(
    manipulator: Manipulator, reference: Coefficients, *, frame_index: Int[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, " s"]:
    """Returns the style of a clip: the geometric median of the styles of its windows.

    Args:
      manipulator: Trained networks.
      reference: Coefficients of a clip, as the source of `manipulate_coefficients`.
      frame_index: Number of each frame in its video: windows never reach over missing ones. None: none is missing.

    Raises:
      InputError: Sizes that do not fit the networks, no frame, or numbers that are not finite.
    """
    _check_coefficients(manipulator, reference, "reference")
    window, device_side = manipulator.settings.window, jax.device_put(manipulator)
    runs = [slice(0, len(reference))] if frame_index is None else consecutive_runs(frame_index)
    # A stretch shorter than a window is read only where there is nothing longer.
    longest = max(run.stop - run.start for run in runs)
    used = [run for run in runs if run.stop - run.start >= min(window, longest)]
    windows = np.concatenate([sliding_windows(at_least_a_window(reference[run], window), window) for run in used])
    batches = [(windows[first:last], padding) for first, last, padding in _batches(len(windows))]
    found = [np.asarray(_style_of(device_side, _padded(part, padding)))[: len(part)] for part, padding in batches]
    return geometric_median(np.concatenate(found))


def with_intensity(styles: Styles, base: Float[np.ndarray, " s"], intensity: float) -> Styles:
    """Returns base + intensity (style - base): 0 is the base, 1 the style, more than 1 an exaggeration of it.

    Args:
      styles: Wanted styles.
      base: Style without the emotion: the neutral label's from the same noise, or the source's own.
      intensity: 0 to `HIGHEST_INTENSITY`.

    Raises:
      InputError: An intensity out of range.
    """
    if not 0 <= intensity <= HIGHEST_INTENSITY:
        raise InputError(f"intensity {intensity:g}: expected 0 (no change of emotion) to {HIGHEST_INTENSITY}")
    strength = np.float32(intensity)
    # In this form intensities 0 and 1 give base and style to the last bit.
    return (np.float32(1) - strength) * base[None] + strength * styles


def window_styles(
    styles: Styles, run: slice, frames: int, *, window: int, transition: Transition
) -> Float[np.ndarray, "w s"]:
    """Returns the style of each window of a stretch, by where in the clip the window's middle lies.

    >>> styles = np.array([[0.0], [1.0]])
    >>> window_styles(styles, slice(0, 6), 6, window=2, transition="steps").ravel()
    array([0., 0., 1., 1., 1.])
    >>> window_styles(styles, slice(0, 6), 6, window=2, transition="linear").ravel()
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])

    Args:
      styles: Styles that follow each other.
      run: Stretch of the clip.
      frames: Frames of the clip.
      window: Frames of a window.
      transition: See `manipulate_coefficients`.
    """
    length = min(window, run.stop - run.start)
    starts = np.arange(run.start, run.stop - length + 1)
    if transition == "steps":
        # The middle counts frames from the clip's start, in halves: whole numbers, so that no rounding decides.
        return styles[(2 * starts + length) * len(styles) // (2 * frames)]
    share = np.clip(starts / max(frames - window, 1), 0, 1) if frames > window else np.full(len(starts), 0.5)
    places = share * (len(styles) - 1)
    before = np.minimum(places.astype(np.int64), max(len(styles) - 2, 0))
    after = np.minimum(before + 1, len(styles) - 1)
    weight = (places - before).astype(styles.dtype)[:, None]
    return (1 - weight) * styles[before] + weight * styles[after]


def _released_choice(windows: int, frames: int, styles: int) -> Int[np.ndarray, " w"]:
    """Which style each window has upstream: by its first frame, in equal parts of the clip."""
    return np.array([min(int(first // (frames / styles)), styles - 1) for first in range(windows)])


def _generate(
    manipulator: Manipulator, frames: Coefficients, styles: Float[np.ndarray, "w s"]
) -> Float[np.ndarray, "w t c"]:
    """Returns every window of the frames, generated with the style of its row."""
    window = manipulator.settings.window
    # Windows that follow each other in one style share what is computed of a frame by itself.
    changes = np.flatnonzero((np.diff(styles, axis=0) != 0).any(axis=1)) + 1
    borders = [0, *changes.tolist(), len(styles)]
    if len(borders) > 2 + len(styles) // window:
        return _generate_one_by_one(manipulator, sliding_windows(frames, window), styles)
    parts = []
    for start, stop in itertools.pairwise(borders):
        style = jnp.asarray(styles[start])
        for first, last, padding in _batches(stop - start):
            stretch = frames[start + first : start + last + window - 1]
            generated = _generate_in_one_style(manipulator, _padded(stretch, padding), style)
            parts.append(np.asarray(generated)[: last - first])
    return np.concatenate(parts)


def _generate_one_by_one(
    manipulator: Manipulator, windows: Float[np.ndarray, "w t c"], styles: Float[np.ndarray, "w s"]
) -> Float[np.ndarray, "w t c"]:
    parts = []
    for first, last, padding in _batches(len(windows)):
        part, own = (_padded(values[first:last], padding) for values in (windows, styles))
        parts.append(np.asarray(_generate_windows(manipulator, part, own))[: last - first])
    return np.concatenate(parts)


def _batches(count: int) -> Iterator[tuple[int, int, int]]:
    """Yields first, last and padding of batches; sizes are few, since each is compiled once."""
    for first in range(0, count, _LARGEST_BATCH):
        size = min(_LARGEST_BATCH, count - first)
        full = max(_SMALLEST_BATCH, 1 << (size - 1).bit_length())
        yield first, first + size, full - size


def _padded(values: Float[np.ndarray, "n *rest"], padding: int) -> Array:
    return jnp.asarray(np.pad(values, [(0, padding)] + [(0, 0)] * (values.ndim - 1), mode="edge"))


@jax.jit
def _generate_in_one_style(
    manipulator: Manipulator, frames: Float[Array, "f c"], style: Float[Array, " s"]
) -> Float[Array, "w t c"]:
    window = manipulator.settings.window
    prepared = manipulator.prepare(frames, jnp.broadcast_to(style[None], (len(frames), len(style))))
    rows = np.arange(len(frames) - window + 1)[:, None] + np.arange(window)[None]
    return manipulator.finish(prepared[rows])


@jax.jit
def _generate_windows(
    manipulator: Manipulator, windows: Float[Array, "w t c"], styles: Float[Array, "w s"]
) -> Float[Array, "w t c"]:
    return manipulator.generate(windows, styles)


@jax.jit
def _style_of(manipulator: Manipulator, windows: Float[Array, "w t c"]) -> Float[Array, "w s"]:
    return manipulator.style_of(windows)


@jax.jit
def _style_of_label(
    manipulator: Manipulator, z: Float[Array, "m z"], emotions: Int[Array, " m"]
) -> Float[Array, "m s"]:
    return manipulator.style_of_label(z, emotions)


def _check_sizes(manipulator: Manipulator, source: Coefficients, styles: Styles) -> None:
    _check_coefficients(manipulator, source, "source")
    size = manipulator.settings.style_size
    if not len(styles) or styles.shape[1] != size:
        raise InputError(f"styles of shape {styles.shape}: expected one or more of {size} numbers")
    if not np.isfinite(styles).all():
        raise InputError("styles: some numbers are not finite")


def _check_coefficients(manipulator: Manipulator, coefficients: Coefficients, name: str) -> None:
    expected = manipulator.settings.coefficients
    if not len(coefficients) or coefficients.shape[1] != expected:
        raise InputError(
            f"{name} coefficients of shape {coefficients.shape}: expected one frame or more of {expected} numbers, the"
            f" jaw's opening and {expected - 1} of expression, as the manipulator was trained on"
        )
    bad = np.flatnonzero(~np.isfinite(coefficients).all(axis=1))
    if len(bad):
        raise InputError(f"{name} coefficients: not finite in row {bad[0]} and {len(bad) - 1} more")
