"""How well lips and speech belong together: SyncNet's LSE-D and LSE-C, at 25 fps as it was made and at 30 fps.

Both take a clip apart into windows of five frames and of twenty columns of cepstra, one a frame, and compare their
embeddings at every shift. Figures of the two protocols do not compare, and are named after them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from scipy import ndimage
from scipy.fft import dct, rfft

from asccl_jax.errors import InputError
from asccl_jax.image.warping import resize_linear

__all__ = [
    "COEFFICIENTS",
    "INT16_AMPLITUDE",
    "SAMPLE_RATE",
    "STEP_25FPS",
    "STEP_30FPS",
    "SYNC_25FPS",
    "SYNC_30FPS",
    "WINDOW_FRAMES",
    "Embedding",
    "LipSync",
    "SyncProtocol",
    "aligned_face_crops",
    "face_boxes",
    "lip_sync",
    "lip_sync_of_clip",
    "lip_windows",
    "nearest_frames",
    "sound_columns",
    "sound_windows",
    "syncnet_crops",
    "syncnet_mfcc",
    "window_count",
]

# What SyncNet hears: mel-frequency cepstra of speech as the Python package it was trained with makes them.

SAMPLE_RATE = 16_000
"""Samples a second."""

COEFFICIENTS = 13

STEP_25FPS = 160
"""Samples from column to column in SyncNet's own use: 10 ms, four a frame of 25 fps."""

STEP_30FPS = 133
"""Samples in the authors' use: 1/120 s, four a frame of 30 fps, rounded; 0.25 % faster than the picture."""

INT16_AMPLITUDE = 32_768.0
"""What samples in -1..1 are multiplied by where a programme reads 16-bit integers."""

_WINDOW = 400  # 25 ms
_FFT_SIZE = 512
_FILTERS = 26
_PRE_EMPHASIS = 0.97
_LIFTER = 22
_MFCC_CHUNK = 4096
_NOTHING = float(np.finfo(np.float64).eps)  # Stands for an energy of zero, whose logarithm there is not.


def syncnet_mfcc(
    samples: Float[np.ndarray, " n"], step: int, *, amplitude: float = 1.0
) -> Float[np.ndarray, "columns 13"]:
    """Returns 13 cepstral coefficients every `step` samples, as `python_speech_features.mfcc` does by default.

    Windows of 25 ms, not tapered, the last one filled with zeros; 26 triangular filters from 0 to 8 kHz whose corners
    are rounded down to bins of 512; liftered by 22; coefficient 0 is the logarithm of the window's energy. There are
    1 + ceil((n - 400) / step) columns, at least one.

    Args:
      samples: Sound at 16 kHz, -1..1.
      step: `STEP_25FPS` or `STEP_30FPS`.
      amplitude: Factor on samples. SyncNet's own programme reads 16-bit integers (`INT16_AMPLITUDE`), the authors'
        reads -1..1; only coefficient 0 tells (by 20.79), and digital silence.

    Raises:
      InputError: No sound at all, or samples that are not finite.
    """
    if not len(samples) or not np.isfinite(samples).all():
        raise InputError(f"sound of {len(samples)} samples, some missing or not finite: expected finite -1..1")
    values = samples.astype(np.float64) * amplitude
    windows = _windows(np.append(values[:1], values[1:] - _PRE_EMPHASIS * values[:-1]), step)
    # A few at a time: spectra of ten minutes would fill half a gigabyte.
    return np.concatenate(
        [_cepstra(windows[first : first + _MFCC_CHUNK]) for first in range(0, len(windows), _MFCC_CHUNK)]
    )


def _cepstra(windows: Float[np.ndarray, "columns window"]) -> Float[np.ndarray, "columns 13"]:
    power = np.abs(rfft(windows, _FFT_SIZE)) ** 2 / _FFT_SIZE
    energy = power.sum(axis=1)
    heard = power @ _filters().T
    cepstra = dct(np.log(np.where(heard == 0, _NOTHING, heard)), axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstra = cepstra * (1 + _LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / _LIFTER))
    cepstra[:, 0] = np.log(np.where(energy == 0, _NOTHING, energy))
    return cepstra


def _windows(values: Float[np.ndarray, " n"], step: int) -> Float[np.ndarray, "columns window"]:
    count = 1 + max(0, math.ceil((len(values) - _WINDOW) / step))
    padded = np.pad(values, (0, (count - 1) * step + _WINDOW - len(values)))
    return np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::step]


@functools.cache
def _filters() -> Float[np.ndarray, "filters bins"]:
    """Triangles evenly spaced in mel: each rises from its first corner to its second and falls to its third."""
    highest_mel = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, highest_mel, _FILTERS + 2) / 2595) - 1)
    corners = np.floor((_FFT_SIZE + 1) * corners_hz / SAMPLE_RATE)
    low, middle, high = (corners[first : first + _FILTERS, None] for first in range(3))
    bins = np.arange(_FFT_SIZE // 2 + 1)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.where(bins < middle, np.where(bins >= low, rising, 0), np.where(bins < high, falling, 0))


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


# The pictures of a talking face that SyncNet sees: cut as in its own programme, or as in the authors' evaluation.

SIDE = 224
"""Height and width of what the network takes, in pixels."""

AUTHORS_MARGIN = 35
"""Pixels that the authors cut from each side of an aligned face of 256."""

_ALIGNED_SIDE = 256
_ABOVE_LANDMARKS = 0.3
_SMOOTHED_FRAMES = 13
_CROP_SCALE = 0.4
_OUTSIDE = 110


def nearest_frames(times_s: Float[np.ndarray, " t"], rate_fps: float) -> Int[np.ndarray, " moments"]:
    """Returns the index of the frame that is nearest to each moment of another, constant frame rate.

    The first moment is that of the first frame; there are as many as the clip is long, the last frame's own time
    included. Frames are dropped or repeated, never mixed.

    >>> nearest_frames(np.arange(7) / 30, 25.0).tolist()
    [0, 1, 2, 4, 5, 6]

    Args:
      times_s: Presentation time of each frame, rising.
      rate_fps: Rate wanted.

    Raises:
      InputError: No frame, or times that do not rise.
    """
    if not len(times_s) or not (np.diff(times_s) > 0).all():
        raise InputError(f"presentation times of {len(times_s)} frames: expected one or more, rising")
    times = times_s.astype(np.float64) - times_s[0]
    last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / rate_fps
    moments = np.arange(max(1, round((times[-1] + last) * rate_fps))) / rate_fps
    return np.searchsorted((times[1:] + times[:-1]) / 2, moments)


def aligned_face_crops(
    faces: Iterable[UInt8[np.ndarray, "s s 3"]], *, margin_px: int = AUTHORS_MARGIN
) -> UInt8[np.ndarray, "t 224 224 3"]:
    """Returns the middle of aligned faces as the authors' evaluation cuts it, in BGR.

    Args:
      faces: Aligned faces, RGB, 0..255; a margin is scaled where they are not of 256 pixels.
      margin_px: Pixels of 256 cut from each side: 35 for MEAD; their script for RAVDESS cuts none.

    Raises:
      InputError: No face, or nothing is left of one.
    """

    def cut(face: np.ndarray) -> np.ndarray:
        side = len(face)
        margin = round(margin_px * side / _ALIGNED_SIDE)
        if side <= 2 * margin:
            raise InputError(f"a margin of {margin} pixels leaves nothing of a face of {side}: choose a smaller one")
        return _for_network(face[margin : side - margin, margin : side - margin])

    return _stacked([cut(face) for face in faces])


def face_boxes(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 4"]:
    """Returns about the boxes x0, y0, x1, y1 that a face detector finds, from the landmarks; NaN where those are.

    SyncNet's programme starts from a detector's boxes, which reach up to the hair. The landmarks' own box, raised by
    0.3 of its width, is that of MTCNN on eight real clips (mean over each within 0.06 of the width on all sides).
    """
    points = landmarks.astype(np.float64)
    low, high = points.min(axis=1), points.max(axis=1)
    low[:, 1] -= _ABOVE_LANDMARKS * (high[:, 0] - low[:, 0])
    return np.concatenate([low, high], axis=1)


def syncnet_crops(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]], boxes: Float[np.ndarray, "t 4"]
) -> UInt8[np.ndarray, "t 224 224 3"]:
    """Returns faces as SyncNet's own programme cuts them, in BGR.

    With s half the longer side of a face's box: from s above its middle to 1.8 s below and 1.4 s to either side, grey
    (110) outside the frame. Size and middle go through a median filter of 13 frames first. That programme also
    stores crops in a lossy video on the way, which is left out.

    Args:
      frames: Whole frames, RGB, 0..255.
      boxes: Borders x0, y0, x1, y1 of the face in each frame, pixels; where NaN, they are interpolated in time.

    Raises:
      InputError: No box at all, or as many boxes as frames there are not.
    """
    squares = _smooth_squares(boxes)
    cut: list[np.ndarray] = []
    for frame in frames:
        if len(cut) == len(squares):
            raise InputError(f"{len(boxes)} boxes of more frames: expected one of each frame")
        cut.append(_cut_square(frame, squares[len(cut)]))
    if len(cut) < len(squares):
        raise InputError(f"{len(boxes)} boxes of {len(cut)} frames: expected one of each frame")
    return _stacked(cut)


def _smooth_squares(boxes: Float[np.ndarray, "t 4"]) -> Float[np.ndarray, "t 3"]:
    """Half side and middle (x, y) of the face in each frame."""
    known = np.isfinite(boxes).all(axis=1)
    if not known.any():
        raise InputError(f"no face in any of {len(boxes)} frames: lip synchrony needs one")
    size = boxes[:, 2:] - boxes[:, :2]
    squares = np.column_stack([size.max(axis=1) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2]).astype(np.float64)
    at = np.arange(len(boxes))
    filled = np.column_stack([np.interp(at, at[known], column[known]) for column in squares.T])
    # Upstream: run_pipeline.py takes zeros beyond both ends: a smaller face there, and none at all in short clips.
    return ndimage.median_filter(filled, size=(_SMOOTHED_FRAMES, 1), mode="reflect")


def _cut_square(frame: UInt8[np.ndarray, "h w 3"], square: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "224 224 3"]:
    half, x, y = (float(value) for value in square)
    wide, low = half * (1 + _CROP_SCALE), half * (1 + 2 * _CROP_SCALE)
    left, right = int(np.floor(x - wide)), int(np.floor(x + wide))
    top, bottom = int(np.floor(y - half)), int(np.floor(y + low))
    height, width = frame.shape[:2]
    crop = np.full((max(1, bottom - top), max(1, right - left), 3), _OUTSIDE, np.uint8)
    seen = frame[max(0, top) : max(0, min(height, bottom)), max(0, left) : max(0, min(width, right))]
    if seen.size:
        row, column = max(0, -top), max(0, -left)
        crop[row : row + seen.shape[0], column : column + seen.shape[1]] = seen
    return _for_network(crop)


def _for_network(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "224 224 3"]:
    return np.ascontiguousarray(resize_linear(image, (SIDE, SIDE))[..., ::-1])


def _stacked(images: list[np.ndarray]) -> UInt8[np.ndarray, "t 224 224 3"]:
    if not images:
        raise InputError("no frames to cut faces from: lip synchrony needs a clip")
    return np.stack(images)
