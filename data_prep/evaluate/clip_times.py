"""Which frame of one clip belongs to which of another: by their times, counted from what is heard in both."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import fft

from data_prep.decode import SAMPLE_RATE, Sound

__all__ = ["ClipClock", "alike", "from_first_picture", "nearest_rows", "sound_shift"]

_USUAL_S = 1 / 30
_LONGEST_S = 60.0
"""Sound that is compared: the loudest minute."""

_REACH_S = 5.0
_LEAST_CORRELATION = 0.5
"""Below it, two sounds are not the same; what codecs leave of a sound correlates by .9 and more with it."""

_EQUAL = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class ClipClock:
    """When the frames of a clip are shown.

    Attributes:
      times_s: Of each frame, the first one's zero.
    """

    times_s: Float[np.ndarray, " t"]

    @property
    def period_s(self) -> float:
        """Usual time from a frame to the next."""
        return float(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else _USUAL_S

    @property
    def span_s(self) -> float:
        """From the first frame to the end of the last."""
        return float(self.times_s[-1]) + self.period_s

    @property
    def rate_fps(self) -> float:
        """Mean frames a second."""
        return len(self.times_s) / self.span_s


def alike(first: ClipClock, second: ClipClock) -> bool:
    """Returns whether both show as many frames at the same times, within half a frame."""
    if len(first.times_s) != len(second.times_s):
        return False
    return bool(np.abs(first.times_s - second.times_s).max() <= min(first.period_s, second.period_s) / 2)


def nearest_rows(clock: ClipClock, wanted_s: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Returns for each time the frame that is nearest to it, or -1 before the first and after the end of the last.

    >>> nearest_rows(ClipClock(np.array([0.0, 0.1, 0.2])), np.array([-0.1, 0.04, 0.06, 0.24, 0.3])).tolist()
    [-1, 0, 1, 2, -1]

    Args:
      clock: Of the clip.
      wanted_s: Times, rising or not.
    """
    times = clock.times_s
    after = np.clip(np.searchsorted(times, wanted_s), 1, max(1, len(times) - 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    # A tie goes to the earlier frame, whatever rounding says.
    rows = np.where(times[after] - wanted_s < wanted_s - times[before] - 1e-6, after, before)
    half = clock.period_s / 2 + 1e-6
    return np.where((wanted_s < -half) | (wanted_s > times[-1] + half), -1, rows)


def from_first_picture(sound: Sound) -> Float[np.ndarray, " n"]:
    """Returns the samples of a sound from the moment of the first picture on."""
    shift = round(sound.start_s * SAMPLE_RATE)
    return np.pad(sound.samples, (shift, 0)) if shift > 0 else sound.samples[-shift:]


def sound_shift(source: Sound, other: Sound) -> float | None:
    """Returns by how many seconds a sound comes later in one clip than in its source, each from its first picture on.

    It is the shift at which the waveforms agree best, so that it does not matter how a file says when its sound starts;
    the smallest among equals. Shifts of up to five seconds are looked at.

    Args:
      source: Sound of the source.
      other: Sound of the other clip.

    Returns:
      The shift; None where the two are not the same sound, or there is silence.
    """
    first, second = (one.samples.astype(np.float64) for one in (source, other))
    apart = other.start_s - source.start_s
    begin = _loudest(first)
    first = first[begin : begin + round(_LONGEST_S * SAMPLE_RATE)]
    reach = round(_REACH_S * SAMPLE_RATE)
    start = max(0, begin - round(apart * SAMPLE_RATE) - reach)
    second = second[start : start + len(first) + 2 * reach]
    if not len(first) or not len(second):
        return None
    apart += (start - begin) / SAMPLE_RATE
    size = fft.next_fast_len(len(first) + len(second), real=True)
    products = fft.irfft(fft.rfft(second, size) * np.conj(fft.rfft(first, size)), size)
    shifts = np.arange(-len(first) + 1, len(second))
    overlaps = np.minimum(len(first), len(second) - shifts) - np.maximum(0, -shifts)
    near = np.abs(shifts / SAMPLE_RATE + apart) <= _REACH_S
    shifts = shifts[near & (overlaps >= min(len(first), len(second)) / 2)]
    if not len(shifts):
        return None
    powers = [np.concatenate([[0.0], np.cumsum(samples**2)]) for samples in (first, second)]
    begins, ends = np.maximum(0, -shifts), np.minimum(len(first), len(second) - shifts)
    shared = (powers[0][ends] - powers[0][begins]) * (powers[1][ends + shifts] - powers[1][begins + shifts])
    floor = 1e-9 * powers[0][-1] * powers[1][-1]
    if floor <= 0:
        return None
    agreement = np.where(shared > floor, products[shifts] / np.sqrt(np.maximum(shared, floor)), 0.0)
    if agreement.max() < _LEAST_CORRELATION:
        return None
    best = shifts[agreement >= agreement.max() - _EQUAL] / SAMPLE_RATE + apart
    return float(best[np.abs(best).argmin()])


def _loudest(samples: Float[np.ndarray, " n"]) -> int:
    """Where the loudest minute begins."""
    length = round(_LONGEST_S * SAMPLE_RATE)
    if len(samples) <= length:
        return 0
    power = np.concatenate([[0.0], np.cumsum(samples**2)])
    begins = np.arange(0, len(samples) - length + 1, SAMPLE_RATE)
    return int(begins[(power[begins + length] - power[begins]).argmax()])
