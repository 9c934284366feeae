"""Coefficient tracks of synthetic speakers, and what the same delivery is in every emotion; nothing is drawn.

DIR/codes and DIR/tracks.json are a directory of tracks (`asccl_jax.data.tracks`): every sentence of a speaker in
all seven emotions, as code dicts of the built-in head. DIR/truth/EMOTION/NAME.npz is the code dict that the held-out
neutral clip of that name would have in that emotion, at intensity 1, with the very speech, timing, blinks and head
motion (`asccl_jax.data.tracks.read_truth`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import (
    LIST_NAME,
    TrackEntry,
    TrackList,
    codes_path,
    read_track_list,
    truth_path,
    write_track_list,
)
from asccl_jax.errors import InputError
from data_prep.synthetic.head import JOINTS, build_head, rotation_matrix
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.speech import Performance, act, compose, deliver, make_sentence

__all__ = ["TrackPlan", "TrackSetSettings", "plan_tracks", "write_track_set"]

_FORMAT = 1
"""Raised when the same settings would give other tracks."""

_SHAPE_SIZE = 100
"""Identity coefficients of a code dict; the finer ones of a person are left out."""

_CROP_SIZE = 224
_CROP_MARGIN = 1.1 * 1.25
"""Side of DECA's crop over the mean side of the landmarks' box."""

_ROOT, _NECK, _JAW = (JOINTS.index(name) for name in ("root", "neck", "jaw"))


@dataclasses.dataclass(frozen=True)
class TrackSetSettings:
    """What a set of tracks consists of; together with the code it determines every number.

    Attributes:
      seed: Of people, sentences and performances.
      speakers: People to train on.
      validation_speakers: People held out.
      sentences: Sentences a training person says in each of the seven emotions, which no other person says.
      validation_sentences: Likewise for those held out.
      syllables: Least and greatest length of a sentence.
      fps: Frames a second.
    """

    seed: int = 0
    speakers: int = 24
    validation_speakers: int = 6
    sentences: int = 4
    validation_sentences: int = 2
    syllables: tuple[int, int] = (5, 7)
    fps: int = 30

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        least = {
            "seed": 0,
            "speakers": 1,
            "validation_speakers": 0,
            "sentences": 1,
            "validation_sentences": 1,
            "fps": 1,
        }
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)}: expected at least {lowest}")
        if not 1 <= self.syllables[0] <= self.syllables[1]:
            raise InputError(f"syllables {self.syllables}: expected the least, at least 1, and the greatest count")


@dataclasses.dataclass(frozen=True)
class TrackPlan:
    """One clip to be acted.

    Attributes:
      person: Seed of the speaker.
      emotion: One of the seven.
      sentence: Number of the sentence.
      split: "train" or "validation".
      seed: Of timing and performance.
    """

    person: int
    emotion: str
    sentence: int
    split: str
    seed: int

    @property
    def speaker(self) -> str:
        """Name of the speaker."""
        return sample_person(self.person).name

    @property
    def clip(self) -> str:
        """The clip's id."""
        return f"{self.speaker}/{self.emotion}/{self.sentence:03d}"


def plan_tracks(settings: TrackSetSettings) -> list[TrackPlan]:
    """Returns all clips of a set, a sentence's deliveries together."""
    plans: list[TrackPlan] = []
    sentence = 0
    for index in range(settings.speakers + settings.validation_speakers):
        trained = index < settings.speakers
        for _ in range(settings.sentences if trained else settings.validation_sentences):
            for emotion in EMOTIONS:
                plans.append(
                    TrackPlan(
                        person=settings.seed * 1000 + index,
                        emotion=emotion,
                        sentence=sentence,
                        split="train" if trained else "validation",
                        seed=settings.seed * 1_000_000 + len(plans),
                    )
                )
            sentence += 1
    return plans


def write_track_set(settings: TrackSetSettings, directory: Path) -> Iterator[int]:
    """Writes all tracks with their truth and, after them, the list; yields the frames per clip.

    Raises:
      InputError: The directory holds tracks made with other settings.
    """
    described = json.loads(json.dumps({"format": _FORMAT, **dataclasses.asdict(settings)}))
    _refuse_others(directory, described)
    for folder in ("codes", *(f"truth/{emotion}" for emotion in EMOTIONS[1:] if settings.validation_speakers)):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    entries = {}
    for plan in plan_tracks(settings):
        sitter = _sitter(plan.person)
        sentence = make_sentence(plan.sentence, seed=settings.seed, syllables=settings.syllables)
        performance = act(deliver(sentence, plan.emotion, seed=plan.seed, fps=settings.fps), seed=plan.seed)
        frames = len(performance.speech)
        sitter.codes(performance.expression, performance.pose).save(codes_path(directory, plan.clip))
        if plan.split == "validation" and plan.emotion == "neutral":
            for emotion in EMOTIONS[1:]:
                path = truth_path(directory, plan.clip, emotion)
                sitter.codes(*_in_emotion(performance, emotion)).save(path)
        entries[plan.clip] = TrackEntry(plan.speaker, plan.emotion, f"{plan.sentence:03d}", plan.split, frames)
        yield frames
    write_track_list(directory, TrackList("synthetic speakers", entries, described))


@dataclasses.dataclass(frozen=True, eq=False)
class _Sitter:
    """A person before a camera that looks at the face at rest as DECA's crop does, and stays there.

    Attributes:
      shape: Identity coefficients.
      camera: Scale, tx, ty of the code dict for a head that is not turned.
      neck: From the root joint to that of the neck, metres.
    """

    shape: Float[np.ndarray, "100"]
    camera: Float[np.ndarray, "3"]
    neck: Float[np.ndarray, "3"]

    def codes(self, expression: Float[np.ndarray, "t 50"], pose: Float[np.ndarray, "t 5 3"]) -> CodeDict:
        """Returns the code dict of what the sitter does.

        Synthetic heads turn at the neck, code dicts turn at the root: the camera makes up for the difference. Code
        dicts know no gaze.
        """
        count = len(expression)
        turns = np.stack([rotation_matrix(turn) for turn in pose[:, _NECK]])
        shift = self.neck - turns @ self.neck
        cameras = self.camera + np.concatenate([np.zeros((count, 1)), shift[:, :2]], axis=1)
        return CodeDict(
            frame_index=np.arange(count),
            shape=np.tile(self.shape.astype(np.float32), (count, 1)),
            exp=expression.astype(np.float32),
            pose=np.concatenate([pose[:, _NECK], pose[:, _JAW]], axis=1).astype(np.float32),
            cam=cameras.astype(np.float32),
            tform=np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),  # the crop is the frame
            original_size=(_CROP_SIZE, _CROP_SIZE),
        )


@functools.lru_cache(maxsize=2)
def _sitter(person: int) -> _Sitter:
    head = build_head()
    shape = sample_person(person).identity[:_SHAPE_SIZE]
    # Sums that several threads share are rounded by how many there are.
    with threadpool_limits(1):
        vertices = head.shaped(shape).astype(np.float64)
        joints = head.J_regressor.astype(np.float64) @ vertices
    face = vertices[np.unique(head.f[head.face_faces]), :2]
    brows = (vertices[head.f[head.landmark_faces], 1] * head.landmark_weights).sum(axis=1).max()
    low, high = face.min(axis=0), np.array([face[:, 0].max(), brows])
    scale = 2 / (_CROP_MARGIN * (high - low).mean())
    camera = np.concatenate([[scale], -(low + high) / 2])
    return _Sitter(shape, camera, joints[_NECK] - joints[_ROOT])


def _in_emotion(performance: Performance, emotion: str) -> tuple[Float[np.ndarray, "t 50"], Float[np.ndarray, "t 5 3"]]:
    """Expression and joint rotations of a neutral performance in an emotion at intensity 1."""
    return compose(emotion, performance.speech, 1.0, performance.blink, performance.pose[:, _NECK])


def _refuse_others(directory: Path, described: dict[str, object]) -> None:
    if not (directory / LIST_NAME).is_file():
        return
    found = read_track_list(directory).settings
    differing = sorted(key for key in described.keys() | found.keys() if described.get(key) != found.get(key))
    if differing:
        raise InputError(
            f"{directory} holds tracks made with other settings ({', '.join(differing)}): "
            "choose another --output or delete it"
        )
