"""Gives a clip's coefficients another emotion: styles of labels or reference clips, on overlapping windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from asccl_jax.errors import InputError
from asccl_jax.infer.geometric_median import geometric_median
from asccl_jax.infer.windows import at_least_a_window, consecutive_runs, overlap_add, sliding_windows
from asccl_jax.models.manipulator import Manipulator

__all__ = [
    "HIGHEST_INTENSITY",
    "Transition",
    "draw_latent",
    "label_styles",
    "manipulate_coefficients",
    "reference_style",
    "window_styles",
    "with_intensity",
]

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
