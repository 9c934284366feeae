"""How a delivery is acted: head motion, blinks, glances and strength of the emotion, drawn independently of speech."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from asccl_jax.data.tracks import TYPICAL_INTENSITY
from data_prep.synthetic.action_units import EMOTION_UNITS, expression_vector, speech_units
from data_prep.synthetic.fields import ramp
from data_prep.synthetic.speech import Delivery

__all__ = ["POSE_SPREAD_RAD", "Performance", "act", "compose", "in_emotion", "random_stance"]

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
