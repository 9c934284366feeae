"""What a sound track says while each video frame is shown: MFCC features, three a frame, and where there is silence."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy.fft import dct, rfft

from data_prep.media.decode import SAMPLE_RATE, Sound

__all__ = ["SUBFRAMES", "SpeechFeatures", "frame_features", "loudness_db", "mfcc"]

WINDOW = 400
"""Samples of an analysis window: 25 ms."""

HOP = 80
"""Samples from window to window: 5 ms."""

FFT_SIZE = 512
MEL_FILTERS = 40
COEFFICIENTS = 13

SUBFRAMES = 3
"""Features a video frame; odd, so that one of them lies in the frame's middle."""

SILENCE_DB = 30.0
"""Sound this far below a clip's loud parts (its 95th percentile) is silence."""

_LOWEST_HZ, _HIGHEST_HZ = 60.0, 7600.0
_SMOOTHING_HOPS = 5
_QUIETEST = 1e-8  # Power below which there is no signal: about three steps of 16-bit sound.


@dataclasses.dataclass(frozen=True)
class SpeechFeatures:
    """A clip's sound in thirds of its video frames.

    Attributes:
      features: Normalised MFCC and their slopes in the middle of each third.
      silent: Thirds in which nothing is said.
    """

    features: Float[np.ndarray, "s f"]
    silent: Bool[np.ndarray, " s"]


def frame_features(sound: Sound, times_s: Float[np.ndarray, " t"]) -> SpeechFeatures:
    """Returns what is heard in each third of the frames of a video.

    Args:
      sound: The clip's sound.
      times_s: Presentation time of each frame, rising; a frame is shown until the next one.
    """
    cepstra = mfcc(sound.samples)
    level = loudness_db(sound.samples)
    hop_silent = level < np.percentile(level, 95) - SILENCE_DB
    spoken = cepstra[~hop_silent] if (~hop_silent).any() else cepstra
    cepstra = (cepstra - spoken.mean(axis=0)) / (spoken.std(axis=0) + 1e-6)
    slopes = np.gradient(_smooth(cepstra), axis=0)
    slopes /= slopes.std(axis=0) + 1e-6
    features = _smooth(np.concatenate([cepstra, slopes], axis=1))
    shown_s = np.diff(times_s, append=2 * times_s[-1] - times_s[-2]) if len(times_s) > 1 else np.zeros(1)
    middles_s = (times_s[:, None] + shown_s[:, None] * (np.arange(SUBFRAMES) + 0.5) / SUBFRAMES).ravel()
    hops_s = sound.start_s + (WINDOW / 2 + HOP * np.arange(len(level))) / SAMPLE_RATE
    at_thirds = np.stack([np.interp(middles_s, hops_s, column) for column in features.T], axis=1)
    silence = np.interp(middles_s, hops_s, hop_silent.astype(float), left=1.0, right=1.0) > 0.5
    # Not the level of no signal at all, which rounding puts on either side of itself, but that of a signal as weak.
    nothing_db = 10 * np.log10(2 * _QUIETEST)
    return SpeechFeatures(features=at_thirds.astype(np.float32), silent=silence | (level.max() < nothing_db))


def mfcc(samples: Float[np.ndarray, " n"]) -> Float[np.ndarray, "hops 13"]:
    """Returns mel-frequency cepstral coefficients every 5 ms, not normalised."""
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    power = np.abs(rfft(_windows(emphasised) * np.hanning(WINDOW), FFT_SIZE)) ** 2
    return np.asarray(dct(np.log(power @ _mel_filters().T + _QUIETEST), axis=1, norm="ortho")[:, :COEFFICIENTS])


def loudness_db(samples: Float[np.ndarray, " n"]) -> Float[np.ndarray, " hops"]:
    """Returns the mean power every 5 ms, in decibels below full scale."""
    return 10 * np.log10(np.mean(_windows(samples) ** 2, axis=1) + _QUIETEST)


def _windows(samples: Float[np.ndarray, " n"]) -> Float[np.ndarray, "hops window"]:
    samples = np.pad(samples, (0, max(0, WINDOW + HOP - len(samples))))  # two windows: slopes need a neighbour
    return np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]


def _mel_filters() -> Float[np.ndarray, "filters bins"]:
    """Triangles evenly spaced on the mel scale."""
    low_mel, high_mel = (2595 * np.log10(1 + limit / 700) for limit in (_LOWEST_HZ, _HIGHEST_HZ))
    corners_hz = 700 * (10 ** (np.linspace(low_mel, high_mel, MEL_FILTERS + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(FFT_SIZE, 1 / SAMPLE_RATE)
    low, centre, high = (corners_hz[first : first + MEL_FILTERS, None] for first in range(3))
    return np.maximum(0, np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)))


def _smooth(columns: Float[np.ndarray, "hops f"]) -> Float[np.ndarray, "hops f"]:
    """Moving average over five hops, shorter at the ends."""
    half = _SMOOTHING_HOPS // 2
    sums = np.cumsum(np.concatenate([np.zeros((1, columns.shape[1])), columns]), axis=0)
    hops = np.arange(len(columns))
    first, last = np.maximum(hops - half, 0), np.minimum(hops + half + 1, len(columns))
    return (sums[last] - sums[first]) / (last - first)[:, None]
