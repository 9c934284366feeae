"""What SyncNet hears: mel-frequency cepstra of speech as the Python package it was trained with makes them."""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Float
from scipy.fft import dct, rfft

from asccl_jax.errors import InputError

__all__ = ["COEFFICIENTS", "INT16_AMPLITUDE", "SAMPLE_RATE", "STEP_25FPS", "STEP_30FPS", "syncnet_mfcc"]

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
_CHUNK = 4096
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
    return np.concatenate([_cepstra(windows[first : first + _CHUNK]) for first in range(0, len(windows), _CHUNK)])


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
