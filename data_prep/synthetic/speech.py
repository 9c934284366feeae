"""Sentences as tracks of mouth shapes, and their deliveries: the same words, another timing, exactly aligned.

A sentence has a canonical time, the one of its neutral delivery. Every delivery is a smooth, strictly rising map from
its own time to canonical time, and its mouth shapes are the sentence's at that canonical time. So two frames of two
deliveries say the same exactly where their canonical times are equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from data_prep.synthetic.action_units import VISEMES

__all__ = ["EMOTION_TEMPO", "SPEECH_SCALE", "Delivery", "Sentence", "deliver", "make_sentence", "speech_distance"]

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
