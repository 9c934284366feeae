"""How well lips and speech belong together: SyncNet's LSE-D and LSE-C, at 25 fps as it was made and at 30 fps.

Both take a clip apart into windows of five frames and of twenty columns of cepstra, one a frame, and compare their
embeddings at every shift. Figures of the two protocols do not compare, and are named after them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from asccl_jax.errors import InputError
from asccl_jax.evals.speech_mfcc import INT16_AMPLITUDE, SAMPLE_RATE, STEP_25FPS, STEP_30FPS, syncnet_mfcc

__all__ = [
    "SYNC_25FPS",
    "SYNC_30FPS",
    "WINDOW_FRAMES",
    "Embedding",
    "LipSync",
    "SyncProtocol",
    "lip_sync",
    "lip_sync_of_clip",
    "lip_windows",
    "sound_columns",
    "sound_windows",
    "window_count",
]

WINDOW_FRAMES = 5
COLUMNS_PER_FRAME = 4
WINDOW_COLUMNS = WINDOW_FRAMES * COLUMNS_PER_FRAME

MOST_SHIFT = 10
"""Frames by which sound is shifted, either way."""

_EPSILON = 1e-6
_CHUNK = 32

Embedding = Callable[[np.ndarray], np.ndarray]
"""Windows, one an entry -> embeddings, one a row."""


@dataclasses.dataclass(frozen=True)
class SyncProtocol:
    """How a clip is laid before SyncNet.

    Attributes:
      name: Ending of the metrics' names.
      rate_fps: Frame rate of the pictures; a clip of another rate is resampled first (`lip_crops.nearest_frames`).
      step: Samples between columns of cepstra.
      amplitude: Factor on samples of -1..1.
    """

    name: str
    rate_fps: float
    step: int
    amplitude: float


SYNC_25FPS = SyncProtocol("25fps", 25.0, STEP_25FPS, INT16_AMPLITUDE)
"""SyncNet's own: what papers call LSE-D and LSE-C, for whole frames (`lip_crops.syncnet_crops`)."""

SYNC_30FPS = SyncProtocol("30fps", 30.0, STEP_30FPS, 1.0)
"""That of the authors' tables, for aligned faces (`lip_crops.aligned_face_crops`)."""


@dataclasses.dataclass(frozen=True)
class LipSync:
    """Lip synchrony of a clip.

    Attributes:
      lse_d: Least mean distance over all shifts; lower is better.
      lse_c: Lower median of mean distances over shifts, minus the least; higher is better.
      offset: Frames by which the picture is late against the sound, by the least distance; negative: it is early.
      windows: Windows compared.
    """

    lse_d: float
    lse_c: float
    offset: int
    windows: int


def sound_columns(
    samples: Float[np.ndarray, " n"], protocol: SyncProtocol, *, skip: int = 0
) -> Float[np.ndarray, "columns 13"]:
    """Returns the cepstra of a clip's sound, four columns a frame.

    Args:
      samples: Sound at 16 kHz, -1..1, from the moment of the first frame on.
      protocol: Which of the two.
      skip: Frames of sound left out at the beginning. The authors leave out 2, which undoes the lag of a pipeline
        that never draws its first two frames; outputs without that lag, as ours, need none.

    Raises:
      InputError: No sound is left, or it is not finite.
    """
    left_out = skip * int(SAMPLE_RATE / protocol.rate_fps)
    return syncnet_mfcc(samples[left_out:], protocol.step, amplitude=protocol.amplitude)


def window_count(frames: int, columns: int) -> int:
    """Returns how many windows a clip has in both picture and sound.

    >>> window_count(30, 119)
    24

    Raises:
      InputError: Not even one.
    """
    count = min(frames, columns // COLUMNS_PER_FRAME) - WINDOW_FRAMES
    if count < 1:
        raise InputError(
            f"{frames} frames with {columns} columns of cepstra: lip synchrony needs {WINDOW_FRAMES + 1} frames and"
            f" {COLUMNS_PER_FRAME * (WINDOW_FRAMES + 1)} columns, and a second or more to mean anything"
        )
    return count


def lip_windows(images: Shaped[np.ndarray, "t h w 3"], count: int) -> Shaped[np.ndarray, "count 5 h w 3"]:
    """Returns the first `count` windows of pictures, window i the frames i..i+4; a view, nothing is copied."""
    windows = np.lib.stride_tricks.sliding_window_view(images, WINDOW_FRAMES, axis=0)
    return np.moveaxis(windows, -1, 1)[:count]


def sound_windows(columns: Float[np.ndarray, "m 13"], count: int) -> Float[np.ndarray, "count 20 13"]:
    """Returns the first `count` windows of sound, window i the columns 4i..4i+19; a view, nothing is copied."""
    windows = np.lib.stride_tricks.sliding_window_view(columns, WINDOW_COLUMNS, axis=0)
    return np.moveaxis(windows, -1, 1)[::COLUMNS_PER_FRAME][:count]


def lip_sync_of_clip(
    images: Shaped[np.ndarray, "t h w 3"],
    columns: Float[np.ndarray, "m 13"],
    lip_features: Embedding,
    sound_features: Embedding,
    *,
    most: int = MOST_SHIFT,
) -> LipSync:
    """Returns the lip synchrony of a clip as two networks see it.

    Args:
      images: What the network sees of the face, BGR, 0..255.
      columns: `sound_columns` of the same protocol.
      lip_features: Embeds windows of pictures, a few at a time.
      sound_features: Embeds windows of sound.
      most: As for `lip_sync`.

    Raises:
      InputError: The clip is too short.
    """
    count = window_count(len(images), len(columns))
    seen, heard = lip_windows(images, count), sound_windows(columns, count)
    return lip_sync(_embedded(seen, lip_features), _embedded(heard, sound_features), most=most)


def lip_sync(lip: Float[np.ndarray, "n d"], sound: Float[np.ndarray, "m d"], *, most: int = MOST_SHIFT) -> LipSync:
    """Returns the lip synchrony of embeddings, window by window.

    Distance of window i at shift s: |lip(i) - sound(i + s) + 1e-6|, the constant added to each component; embeddings
    of sound beyond its ends are zero, and count.

    >>> far = np.eye(30)
    >>> lip_sync(far[:20], far[3:23]).offset
    3

    Args:
      lip: Embeddings of windows of pictures.
      sound: Embeddings of windows of sound; as many, or more where sound goes on.
      most: Largest shift, either way.

    Raises:
      InputError: No window, or an embedding is not finite.
    """
    if not len(lip) or not len(sound) or not (np.isfinite(lip).all() and np.isfinite(sound).all()):
        raise InputError(
            f"embeddings of {len(lip)} windows of lips and {len(sound)} of sound: expected one or more of each, finite"
        )
    lips = lip.astype(np.float64) + _EPSILON
    padded = np.pad(sound.astype(np.float64), ((most, max(most, most + len(lip) - len(sound))), (0, 0)))
    distances = np.array(
        [np.linalg.norm(lips - padded[shift : shift + len(lip)], axis=1).mean() for shift in range(2 * most + 1)]
    )
    least = int(distances.argmin())
    # The middle one, as the number of shifts is odd.
    confidence = np.sort(distances)[most] - distances[least]
    return LipSync(float(distances[least]), float(confidence), most - least, len(lip))


def _embedded(windows: np.ndarray, features: Embedding) -> np.ndarray:
    chunks = (windows[first : first + _CHUNK] for first in range(0, len(windows), _CHUNK))
    return np.concatenate([np.asarray(features(np.ascontiguousarray(chunk))) for chunk in chunks])
