"""Deliveries of a sentence: mouth shapes over time, how they are acted, how they sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from asccl_jax.data.tracks import TYPICAL_INTENSITY
from data_prep.synthetic.action_units import EMOTION_UNITS, VISEMES, expression_vector, speech_units
from data_prep.synthetic.people import Person
from data_prep.synthetic.skin_surface import ramp

__all__ = [
    "EMOTION_TEMPO",
    "POSE_SPREAD_RAD",
    "SAMPLE_RATE",
    "SPEECH_SCALE",
    "Delivery",
    "Performance",
    "Sentence",
    "act",
    "compose",
    "deliver",
    "in_emotion",
    "make_sentence",
    "random_stance",
    "speak",
    "speech_distance",
]

# A sentence has a canonical time, the one of its neutral delivery. Every delivery is a smooth, strictly rising map from
# its own time to canonical time, and its mouth shapes are the sentence's at that canonical time. So two frames of two
# deliveries say the same exactly where their canonical times are equal.

_VOWELS = ("a", "e", "i", "o", "u")
_CONSONANTS = ("m", "f", "s", "sh", "l", "n")

EMOTION_TEMPO: Mapping[str, float] = {
    "neutral": 1.0,
    "angry": 0.95,
    "disgusted": 1.06,
    "fear": 0.93,
    "happy": 0.98,
    "sad": 1.12,
    "surprised": 1.02,
}
"""Mean length of a sentence's sounds relative to its neutral delivery."""

_TIMING_SPREAD = 0.20
"""Standard deviation of the logarithm of one sound's length between deliveries."""

SPEECH_SCALE = np.array([0.084, 0.25, 0.29, 0.29])
"""Standard deviation of jaw, spread, pucker and lower lip over sentences: the unit of `speech_distance`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
    """Something to say.

    Attributes:
      number: Of the sentence; equal numbers say the same words.
      sounds: Names of `VISEMES`, silence first and last.
      lengths_s: How long each lasts in the neutral delivery.
    """

    number: int
    sounds: tuple[str, ...]
    lengths_s: Float[np.ndarray, " p"]

    @property
    def bounds_s(self) -> Float[np.ndarray, "q"]:
        """Canonical times at which sounds begin and the last one ends."""
        return np.concatenate([[0.0], np.cumsum(self.lengths_s)])

    def mouth(self, canonical_time_s: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 4"]:
        """Returns the mouth shapes (`SPEECH_CHANNELS`) at canonical times: each sound's own in its middle."""
        bounds = self.bounds_s
        middle = 0.5 * (bounds[:-1] + bounds[1:])
        knots = np.concatenate([[bounds[0] - 0.05], middle, [bounds[-1] + 0.05]])
        shapes = np.array([VISEMES[sound] for sound in self.sounds])
        shapes = np.concatenate([shapes[:1], shapes, shapes[-1:]])
        return PchipInterpolator(knots, shapes)(np.clip(canonical_time_s, knots[0], knots[-1]))


@dataclasses.dataclass(frozen=True, eq=False)
class Delivery:
    """A sentence as spoken once.

    Attributes:
      sentence: What is said.
      emotion: How.
      bounds_s: Own times at which the sounds begin and the last one ends.
      frame_count: Video frames.
      fps: Video frames a second.
    """

    sentence: Sentence
    emotion: str
    bounds_s: Float[np.ndarray, " q"]
    frame_count: int
    fps: float

    @property
    def frame_times_s(self) -> Float[np.ndarray, " t"]:
        """Own time at the middle of each frame."""
        return (np.arange(self.frame_count) + 0.5) / self.fps

    def canonical_time(self, own_time_s: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """Returns the canonical times of own times."""
        return PchipInterpolator(self.bounds_s, self.sentence.bounds_s, extrapolate=True)(own_time_s)

    def mouth(self) -> Float[np.ndarray, "t 4"]:
        """Returns the mouth shape of each frame."""
        return self.sentence.mouth(self.canonical_time(self.frame_times_s))


def make_sentence(number: int, *, seed: int = 0, syllables: tuple[int, int] = (5, 7)) -> Sentence:
    """Returns the sentence of a number: random syllables, no sound twice in a row.

    Args:
      number: Of the sentence.
      seed: Of the whole set of sentences.
      syllables: Least and greatest count of syllables.
    """
    rng = np.random.default_rng([0x5E27, seed, number])
    sounds: list[str] = []
    for _ in range(int(rng.integers(syllables[0], syllables[1] + 1))):
        sounds.append(_other_than(rng, _CONSONANTS, sounds[-2:]))
        sounds.append(_other_than(rng, _VOWELS, sounds[-2:]))
        if rng.random() < 0.3:
            sounds.append(_other_than(rng, ("n", "l", "s"), sounds[-2:]))
    lengths = [rng.uniform(0.10, 0.17) if sound in _VOWELS else rng.uniform(0.065, 0.105) for sound in sounds]
    edges = rng.uniform(0.14, 0.20, 2)
    return Sentence(number, ("silence", *sounds, "silence"), np.array([edges[0], *lengths, edges[1]]))


def _other_than(rng: np.random.Generator, choices: tuple[str, ...], taken: list[str]) -> str:
    return str(rng.choice([choice for choice in choices if choice not in taken]))


def deliver(sentence: Sentence, emotion: str, *, seed: int = 0, fps: float = 30.0) -> Delivery:
    """Returns one delivery of a sentence: canonical timing if neutral, each sound stretched at random otherwise.

    Args:
      sentence: What to say.
      emotion: One of the seven; sets the tempo.
      seed: Of the timing.
      fps: Video frames a second.
    """
    lengths = sentence.lengths_s
    if emotion != "neutral":
        rng = np.random.default_rng([0xDE11, seed, sentence.number])
        stretch = EMOTION_TEMPO[emotion] * np.exp(_TIMING_SPREAD * rng.standard_normal(len(lengths)))
        # Pauses keep their length: nothing in their sound could tell how they were stretched.
        lengths = lengths * np.where(np.array(sentence.sounds) == "silence", 1.0, stretch)
    bounds = np.concatenate([[0.0], np.cumsum(lengths)])
    return Delivery(sentence, emotion, bounds, round(float(bounds[-1]) * fps), fps)


def speech_distance(a: Float[np.ndarray, "*t 4"], b: Float[np.ndarray, "*t 4"]) -> Float[np.ndarray, "*t"]:
    """Returns how far apart two mouth shapes are: root mean square over channels in units of `SPEECH_SCALE`.

    Two shapes drawn independently are 1.41 apart in the mean square.
    """
    return np.sqrt(np.mean(((np.asarray(a) - np.asarray(b)) / SPEECH_SCALE) ** 2, axis=-1))


# How a delivery is acted: head motion, blinks, glances and strength of the emotion, drawn independently of speech.

POSE_SPREAD_RAD = np.array([0.03, 0.05, 0.02]) / np.sqrt(2)
"""Standard deviation of head pitch, yaw and roll over frames of many clips: two clips' frames differ by
0.03, 0.05 and 0.02."""

_SWAY_SHARE = 0.2
"""Part of that variance that a head runs through within a clip; the rest lies between clips."""

INTENSITY = (0.6, 1.1)
_NECK, _JAW, _LEFT_EYE, _RIGHT_EYE = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True, eq=False)
class Performance:
    """All that moves a face, frame by frame.

    Attributes:
      speech: Mouth shapes, `SPEECH_CHANNELS`.
      canonical_time_s: Place in the sentence: equal where two deliveries say the same.
      expression: Expression coefficients of the head.
      pose: Axis-angle rotation of each joint, radians; the head turns at the neck.
      blink: 0 open, 1 shut.
      intensity: Strength of the emotion, 0 for neutral.
    """

    speech: Float[np.ndarray, "t 4"]
    canonical_time_s: Float[np.ndarray, " t"]
    expression: Float[np.ndarray, "t 50"]
    pose: Float[np.ndarray, "t 5 3"]
    blink: Float[np.ndarray, " t"]
    intensity: Float[np.ndarray, " t"]


def act(delivery: Delivery, *, seed: int) -> Performance:
    """Returns a delivery as acted with the head motion, blinks and intensity of a seed."""
    rng = np.random.default_rng([0xAC7, seed])
    time = delivery.frame_times_s
    speech = delivery.mouth()
    turn = rng.normal(0, np.sqrt(1 - _SWAY_SHARE) * POSE_SPREAD_RAD)
    turn = turn + _sway(rng, time, np.sqrt(_SWAY_SHARE) * POSE_SPREAD_RAD)
    blink = _blinks(rng, time)
    intensity = rng.uniform(*INTENSITY) * (1 + 0.05 * np.sin(2 * np.pi * (0.6 * time + rng.random())))
    if delivery.emotion == "neutral":
        intensity = np.zeros_like(time)
    expression, pose = compose(delivery.emotion, speech, intensity, blink, turn, _glances(rng, time))
    return Performance(speech, delivery.canonical_time(time), expression, pose, blink, intensity)


def in_emotion(performance: Performance, emotion: str, *, intensity: float = TYPICAL_INTENSITY) -> Performance:
    """Returns a neutral performance with an emotion added: same speech, timing, head motion, gaze and blinks.

    Args:
      performance: Of a neutral delivery.
      emotion: Which.
      intensity: Its strength, the same in all frames.
    """
    strength = np.full_like(performance.blink, intensity)
    turn = performance.pose[:, _NECK]
    expression, _ = compose(emotion, performance.speech, strength, performance.blink, turn)
    return dataclasses.replace(performance, expression=expression, intensity=strength)


def random_stance(rng: np.random.Generator) -> tuple[Float[np.ndarray, "3"], float]:
    """Returns head rotation and blink of a single frame, spread as within clips."""
    turn = rng.normal(0, POSE_SPREAD_RAD)
    blink = float(rng.uniform(0.2, 1.0)) if rng.random() < 0.12 else 0.0
    return turn, blink


def compose(
    emotion: str,
    speech: Float[np.ndarray, "*t 4"],
    intensity: Float[np.ndarray, "*t"] | float,
    blink: Float[np.ndarray, "*t"] | float,
    turn: Float[np.ndarray, "*t 3"],
    glance: Float[np.ndarray, "*t 2"] | None = None,
) -> tuple[Float[np.ndarray, "*t 50"], Float[np.ndarray, "*t 5 3"]]:
    """Returns expression coefficients and joint rotations of what a face does.

    Args:
      emotion: Which.
      speech: Mouth shapes, `SPEECH_CHANNELS`.
      intensity: Strength of the emotion.
      blink: 0 open, 1 shut.
      turn: Head pitch, yaw, roll, radians.
      glance: Pitch and yaw of the gaze off the camera, radians; None looks into the camera.
    """
    feeling = {name: strength * np.asarray(intensity) for name, strength in EMOTION_UNITS[emotion].items()}
    # A lid that droops already has less far to go.
    lids = np.asarray(blink) * (1 - np.asarray(feeling.get("blink", 0.0)))
    expression = expression_vector(feeling, speech_units(speech), {"blink": lids})
    pose = np.zeros((*speech.shape[:-1], 5, 3))
    pose[..., _NECK, :] = turn
    pose[..., _JAW, 0] = speech[..., 0]
    gaze = -0.85 * turn[..., :2] + (0 if glance is None else glance)
    pose[..., _LEFT_EYE, :2] = gaze
    pose[..., _RIGHT_EYE, :2] = gaze
    return expression, pose


def _sway(
    rng: np.random.Generator, time: Float[np.ndarray, " t"], spread: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "t 3"]:
    """Slow turning whose root mean square is `spread`."""
    rate, phase = rng.uniform(0.15, 0.8, (3, 2)), rng.uniform(0, 2 * np.pi, (3, 2))
    return (np.sin(2 * np.pi * rate * time[:, None, None] + phase) * [1.2, 0.75]).sum(-1) * spread


def _blinks(rng: np.random.Generator, time: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    blink = np.zeros_like(time)
    start = rng.exponential(1.4)
    while start < time[-1] + 0.2:
        blink = np.maximum(blink, ramp(time, start, start + 0.09) * ramp(time, start + 0.26, start + 0.11))
        start += 0.7 + rng.exponential(2.2)
    return blink


def _glances(rng: np.random.Generator, time: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 2"]:
    gaze = np.zeros((len(time), 2))
    start = 0.0
    while start < time[-1]:
        target = rng.normal(0, (0.025, 0.05))
        gaze += ramp(time, start, start + 0.05)[:, None] * (target - gaze[-1])
        start += 0.4 + rng.exponential(0.8)
    return gaze


# The sound of a delivery: a pulsed and a hissing source through moving resonances, in step with the mouth.

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
