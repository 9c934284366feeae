"""Clips of synthetic heads of which everything is known: landmarks with a detector's noise, and what was acted.

Nothing is drawn: the landmarks are those of the posed head. The speakers' shape, speech, blinks and strength of emotion
come from `data_prep.synthetic`; heads turn twice as far as there.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import lfilter

from asccl_jax.data.schema import EMOTIONS
from data_prep.synthetic.head import EXPRESSION_START, JOINTS, build_head, joint_transforms, rotation_matrix
from data_prep.synthetic.landmark_embedding import contour_landmarks
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.speech import act, deliver, make_sentence

__all__ = ["LandmarkNoise", "TruthClip", "act_clip", "act_speaker"]

_TURN_RAD = np.array([0.06, 0.12, 0.03])
_SCALE_PX_PER_M = 1000.0
_CENTRE_PX = np.array([128.0, 120.0])
_NECK = JOINTS.index("neck")
_EYES = [JOINTS.index("right_eye"), JOINTS.index("left_eye")]


@dataclasses.dataclass(frozen=True)
class LandmarkNoise:
    """How a detector errs: standard deviations in pixels.

    Attributes:
      white_px: Of an error that is new in every frame.
      slow_px: Of an error that fades from frame to frame.
      memory: Share of the slow error left after one frame.
      constant_px: Of an error that is the same in all clips of a speaker.
    """

    white_px: float = 0.5
    slow_px: float = 0.7
    memory: float = 0.9
    constant_px: float = 0.5

    def constant(self, rng: np.random.Generator) -> Float[np.ndarray, "68 2"]:
        """Returns a speaker's constant error."""
        return rng.normal(0, self.constant_px, (68, 2))

    def changing(self, rng: np.random.Generator, frames: int) -> Float[np.ndarray, "t 68 2"]:
        """Returns the errors that change over a clip."""
        white = rng.normal(0, self.white_px, (frames, 68, 2))
        drive = rng.normal(0, self.slow_px * np.sqrt(1 - self.memory**2), (frames, 68, 2))
        drive[0] = rng.normal(0, self.slow_px, (68, 2))
        return white + lfilter([1], [1, -self.memory], drive, axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class TruthClip:
    """A clip and what was acted in it.

    Attributes:
      speaker: Who.
      emotion: One of the seven.
      identity: Coefficients of the speaker's shape.
      landmarks: As measured, pixels.
      expression: Expression coefficients.
      jaw: Jaw angle, radians.
      turn: Axis-angle rotation of the head.
      intensity: Strength of the emotion.
      scale: Pixels per metre.
    """

    speaker: str
    emotion: str
    identity: Float[np.ndarray, " k"]
    landmarks: Float[np.ndarray, "t 68 2"]
    expression: Float[np.ndarray, "t 50"]
    jaw: Float[np.ndarray, " t"]
    turn: Float[np.ndarray, "t 3"]
    intensity: Float[np.ndarray, " t"]
    scale: float = _SCALE_PX_PER_M


def act_speaker(
    seed: int,
    *,
    emotions: tuple[str, ...] = EMOTIONS,
    syllables: tuple[int, int] = (10, 13),
    noise: LandmarkNoise | None = None,
) -> list[TruthClip]:
    """Returns one clip of each emotion of the synthetic person of a seed."""
    noise = noise or LandmarkNoise()
    constant = noise.constant(np.random.default_rng([0xB1A5, seed]))
    clips = []
    for number, emotion in enumerate(emotions):
        clip = act_clip(seed, emotion, take=number, syllables=syllables)
        rng = np.random.default_rng([0x4015E, seed, number])
        measured = clip.landmarks + constant + noise.changing(rng, len(clip.landmarks))
        clips.append(dataclasses.replace(clip, landmarks=measured))
    return clips


def act_clip(seed: int, emotion: str, *, take: int, syllables: tuple[int, int] = (10, 13)) -> TruthClip:
    """Returns a clip with exact landmarks."""
    person = sample_person(seed)
    sentence = make_sentence(take, seed=seed, syllables=syllables)
    delivery = deliver(sentence, emotion, seed=100 * seed + take)
    performance = act(delivery, seed=100 * seed + take)
    rng = np.random.default_rng([0x7C21, seed, take])
    time = delivery.frame_times_s[:, None]
    turn = _TURN_RAD * np.sin(2 * np.pi * (rng.uniform(0.2, 0.6, 3) * time + rng.random(3)))
    pose = performance.pose.copy()
    pose[:, _NECK] = turn
    return TruthClip(
        speaker=person.name,
        emotion=emotion,
        identity=person.identity,
        landmarks=_landmarks(person.identity, performance.expression, pose),
        expression=performance.expression,
        jaw=pose[:, JOINTS.index("jaw"), 0],
        turn=turn,
        intensity=performance.intensity,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _FaceMesh:
    """The vertices that make landmarks: corners of the fixed ones, and the face proper, whose outline is the jaw's."""

    vertices: Int[np.ndarray, " m"]
    corners: Int[np.ndarray, "51 3"]
    weights: Float[np.ndarray, "51 3"]
    edges: Int[np.ndarray, "e 2"]


@functools.cache
def _face_mesh() -> _FaceMesh:
    head = build_head()
    triangles, corners = head.f[head.face_faces], head.f[head.landmark_faces]
    vertices, place = np.unique(np.concatenate([triangles, corners]), return_inverse=True)
    place = place.reshape(-1, 3)
    sides = place[: len(triangles)]
    edges = np.unique(np.sort(np.concatenate([sides[:, [0, 1]], sides[:, [1, 2]], sides[:, [2, 0]]]), axis=1), axis=0)
    return _FaceMesh(vertices, place[len(triangles) :], head.landmark_weights, edges)


def _landmarks(
    identity: Float[np.ndarray, " k"], expression: Float[np.ndarray, "t 50"], pose: Float[np.ndarray, "t 5 3"]
) -> Float[np.ndarray, "t 68 2"]:
    head, mesh = build_head(), _face_mesh()
    shaped = head.shaped(identity)
    joints = head.J_regressor @ shaped
    fields = head.shapedirs[mesh.vertices, :, EXPRESSION_START : EXPRESSION_START + expression.shape[1]]
    rest, weights = shaped[mesh.vertices], head.weights[mesh.vertices]
    result = np.empty((len(expression), 68, 2))
    for frame, (strengths, turns) in enumerate(zip(expression, pose, strict=True)):
        transforms = joint_transforms(joints, [rotation_matrix(turn) for turn in turns])
        moved = rest + fields @ strengths
        blended = np.einsum("nj,jab->nab", weights, transforms)
        points = _project(np.einsum("nab,nb->na", blended[:, :, :3], moved) + blended[:, :, 3])
        eyes = _project(joints[_EYES] @ transforms[_NECK][:, :3].T + transforms[_NECK][:, 3])
        result[frame, :17] = contour_landmarks(points, mesh.edges, eyes[0], eyes[1])
        result[frame, 17:] = (points[mesh.corners] * mesh.weights[:, :, None]).sum(1)
    return result


def _project(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    return points[:, :2] * (_SCALE_PX_PER_M, -_SCALE_PX_PER_M) + _CENTRE_PX
