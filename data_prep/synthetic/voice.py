"""The sound of a delivery: a pulsed and a hissing source through moving resonances, in step with the mouth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from data_prep.synthetic.people import Person
from data_prep.synthetic.speech import Delivery

__all__ = ["SAMPLE_RATE", "speak"]

SAMPLE_RATE = 16_000
_HOP, _WINDOW, _FFT = 80, 320, 512
_SWITCH_S = 0.012
"""Standard deviation of the smoothing where one source gives way to another."""

# First three resonances in Hz (of a man), voicing, hiss, middle and width of the hiss in Hz.
_SOUNDS: Mapping[str, tuple[float, ...]] = {
    "silence": (500, 1500, 2500, 0.0, 0.0, 3000, 2000),
    "a": (730, 1200, 2500, 1.0, 0.0, 3000, 2000),
    "e": (530, 1850, 2500, 0.9, 0.0, 3000, 2000),
    "i": (290, 2300, 3000, 0.8, 0.0, 3000, 2000),
    "o": (500, 880, 2400, 0.9, 0.0, 3000, 2000),
    "u": (310, 800, 2250, 0.8, 0.0, 3000, 2000),
    "m": (250, 1050, 2200, 0.35, 0.0, 3000, 2000),
    "n": (280, 1700, 2600, 0.40, 0.0, 3000, 2000),
    "l": (370, 1250, 2800, 0.55, 0.0, 3000, 2000),
    "f": (400, 1400, 2500, 0.0, 0.10, 6500, 2500),
    "s": (400, 1600, 2600, 0.0, 0.30, 6200, 1100),
    "sh": (400, 1700, 2600, 0.0, 0.30, 3400, 1000),
}
# Pitch relative to neutral, span of the pitch in octaves, loudness.
_MANNER: Mapping[str, tuple[float, float, float]] = {
    "neutral": (1.00, 0.18, 0.70),
    "angry": (1.16, 0.35, 1.00),
    "disgusted": (0.97, 0.25, 0.75),
    "fear": (1.28, 0.22, 0.70),
    "happy": (1.20, 0.45, 0.90),
    "sad": (0.92, 0.10, 0.50),
    "surprised": (1.28, 0.50, 0.85),
}


def speak(person: Person, delivery: Delivery, *, seed: int = 0) -> Float[np.ndarray, " n"]:
    """Returns the sound of a delivery, -1..1 at `SAMPLE_RATE`, exactly as long as its video.

    Args:
      person: Whose voice.
      delivery: What is said when.
      seed: Of noise and melody.
    """
    rng = np.random.default_rng([0x501C, seed, person.seed, delivery.sentence.number])
    count = round(delivery.frame_count / delivery.fps * SAMPLE_RATE)
    hops = count // _HOP + _WINDOW // _HOP + 1
    targets = _articulation(delivery, hops)
    level, span, loudness = _MANNER[delivery.emotion]
    own_time = np.arange(count) / SAMPLE_RATE
    progress = own_time / own_time[-1]
    melody = 0.5 * np.sin(2 * np.pi * (1.3 * progress + rng.random())) - 0.6 * progress
    melody = melody + 0.15 * np.sin(2 * np.pi * (5.1 * own_time + rng.random()))
    pitch = person.pitch_hz * level * 2 ** (span * melody)
    voiced = _filtered(_pulses(pitch), _resonances(targets, person.tract) * targets[:, 3:4])
    noise = rng.standard_normal(count)
    hiss = _filtered(noise, _hiss(targets))
    sound = voiced / max(float(np.abs(voiced).max()), 1e-9) + 0.9 * hiss
    sound = sound * loudness * 0.75 + 0.0015 * rng.standard_normal(count)
    return (sound / max(1.0, float(np.abs(sound).max()) / 0.98)).astype(np.float32)


def _articulation(delivery: Delivery, hops: int) -> Float[np.ndarray, "h 7"]:
    """Resonances glide from the middle of a sound to the middle of the next, as the mouth does; sources switch."""
    own_time = (np.arange(hops) * _HOP) / SAMPLE_RATE
    sounds = np.array([_SOUNDS[name] for name in delivery.sentence.sounds])
    current = np.clip(np.searchsorted(delivery.bounds_s, own_time, side="right") - 1, 0, len(sounds) - 1)
    switched = gaussian_filter1d(sounds[current], _SWITCH_S * SAMPLE_RATE / _HOP, axis=0, mode="nearest")
    bounds = delivery.sentence.bounds_s
    middle = 0.5 * (bounds[:-1] + bounds[1:])
    canonical = np.clip(delivery.canonical_time(own_time), middle[0], middle[-1])
    gliding = PchipInterpolator(middle, sounds[:, :3])(canonical)
    return np.concatenate([gliding, switched[:, 3:]], axis=1)


def _pulses(pitch: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A train of glottal pulses: all harmonics below the Nyquist frequency, falling with their number."""
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    harmonics = int(0.5 * SAMPLE_RATE / pitch.max())
    turn = np.exp(1j * phase)
    power, total = np.ones_like(turn), np.zeros(len(phase))
    for number in range(1, harmonics + 1):
        power = power * turn
        total += power.real / number**0.9
    return total


def _resonances(targets: Float[np.ndarray, "h 7"], tract: float) -> Float[np.ndarray, "h k"]:
    frequency = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)[None]
    gain = 0.03 * np.ones((len(targets), frequency.shape[1]))
    for formant, (width, strength) in enumerate(((70, 1.0), (100, 0.65), (160, 0.30))):
        gain += strength / (1 + np.square((frequency - targets[:, formant, None] / tract) / width))
    return gain


def _hiss(targets: Float[np.ndarray, "h 7"]) -> Float[np.ndarray, "h k"]:
    frequency = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)[None]
    return targets[:, 4:5] * np.exp(-0.5 * np.square((frequency - targets[:, 5:6]) / targets[:, 6:7]))


def _filtered(source: Float[np.ndarray, " n"], gain: Float[np.ndarray, "h k"]) -> Float[np.ndarray, " n"]:
    """Source through a filter that changes every hop, by overlapping windows."""
    half = _WINDOW // 2
    window = np.hanning(_WINDOW + 1)[:-1]
    padded = np.pad(source, (half, half + _WINDOW + _HOP * len(gain)))
    starts = np.arange(len(gain)) * _HOP
    pieces = padded[starts[:, None] + np.arange(_WINDOW)] * window
    shaped = np.fft.irfft(np.fft.rfft(pieces, _FFT) * gain, _FFT)
    total = np.zeros(len(padded) + _FFT)
    for start, piece in zip(starts, shaped, strict=True):
        total[start : start + _FFT] += piece
    return total[half : half + len(source)] * (_HOP / window.sum())
