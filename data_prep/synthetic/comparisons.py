"""Controlled comparisons for evaluation: pairs of frames of held-out people that differ in one known way.

Each group has a neutral query frame and one key frame per condition. Frames are drawn on purpose, not taken from clips:
only so can speech, pose, blink and intensity be held equal while one factor changes.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from asccl_jax.data.dataset import extend_dataset
from asccl_jax.data.manifest import Manifest, read_manifest
from asccl_jax.data.schema import COMPARISON_CONDITIONS, EMOTIONS, ComparisonRecord, FrameRecord
from asccl_jax.errors import InputError
from data_prep.media.crop import CropMode, crop_face, encode_jpeg
from data_prep.synthetic.action_units import EMOTION_UNITS, UPPER_FACE_UNITS, expression_vector
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.person_renderer import Drawing, Renderer
from data_prep.synthetic.speech import compose, deliver, make_sentence, random_stance, speech_distance
from data_prep.synthetic.synthetic_clips import process_pool

__all__ = ["COMPARISON_SPLIT", "ComparisonSettings", "Group", "Still", "plan_groups", "write_records"]

COMPARISON_SPLIT = "comparisons"

OTHER_SPEECH = (1.5, np.inf)
SMALL_CHANGE = (0.3, 0.8)
"""Ranges of `speech_distance` between query and key where speech was changed."""

_SENTENCE_POOL = 80
_FIRST_SENTENCE = 1_000_000
"""Far from the numbers of any clip: the sentences are held out too."""

_BROW_EMOTIONS = ("angry", "fear", "sad", "surprised")


@dataclasses.dataclass(frozen=True)
class ComparisonSettings:
    """How many comparisons are drawn, and how.

    Attributes:
      groups: Query frames.
      size: Side in pixels of the frame the faces are cut from; that of the training videos.
      seed: Of all that is random.
    """

    groups: int = 300
    size: int = 192
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Still:
    """A single frame to draw.

    Attributes:
      condition: "query" or one of `schema.COMPARISON_CONDITIONS`.
      person: Seed of the person shown.
      emotion: The emotion shown, "neutral" too where only the brows show one.
      speech: Mouth shape.
      intensity: Strength of the emotion.
      turn: Head pitch, yaw, roll, radians.
      blink: 0 open, 1 shut.
    """

    condition: str
    person: int
    emotion: str
    speech: Float[np.ndarray, "4"]
    intensity: float
    turn: Float[np.ndarray, "3"]
    blink: float


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """A query and its keys.

    Attributes:
      number: Of the group.
      emotion: The emotion compared with neutral.
      brow_emotion: Whose upper face the "brow_only" key wears.
      query: Neutral frame.
      keys: One frame per condition.
    """

    number: int
    emotion: str
    brow_emotion: str
    query: Still
    keys: tuple[Still, ...]


def plan_groups(people: Sequence[int], settings: ComparisonSettings) -> list[Group]:
    """Returns the groups for held-out people, by their seeds; emotions and people take turns.

    Raises:
      InputError: Fewer than two people: there would be no other identity.
    """
    if len(people) < 2:
        raise InputError(f"{len(people)} held-out people: comparisons need at least 2, for keys of another identity")
    sentences = (make_sentence(_FIRST_SENTENCE + k, seed=settings.seed) for k in range(_SENTENCE_POOL))
    pool = np.concatenate([deliver(sentence, "neutral").mouth()[3:-3] for sentence in sentences])
    return [_plan_group(number, people, pool, settings.seed) for number in range(settings.groups)]


def _plan_group(number: int, people: Sequence[int], pool: Float[np.ndarray, "n 4"], seed: int) -> Group:
    rng = np.random.default_rng([0xC0FA, seed, number])
    emotion = EMOTIONS[1 + number % (len(EMOTIONS) - 1)]
    person = people[number // (len(EMOTIONS) - 1) % len(people)]
    other_person = int(rng.choice([candidate for candidate in people if candidate != person]))
    speech, other, small = _draw_speech(rng, pool)
    brow_emotion = emotion if emotion in _BROW_EMOTIONS else str(rng.choice(_BROW_EMOTIONS))
    query_stance, emotional_stance, neutral_stance = (random_stance(rng) for _ in range(3))
    strength = float(rng.uniform(0.6, 1.1))
    query = Still("query", person, "neutral", speech, 0.0, *query_stance)
    matched = Still("matched", person, emotion, speech, strength, *emotional_stance)
    plain = Still("neutral_same_speech", person, "neutral", speech, 0.0, *neutral_stance)
    change = dataclasses.replace
    keys = {
        still.condition: still
        for still in (
            matched,
            change(matched, condition="other_speech", speech=other),
            change(matched, condition="small_speech_change", speech=small),
            plain,
            change(plain, condition="neutral_other_speech", speech=other),
            change(plain, condition="brow_only", intensity=strength),
            change(matched, condition="other_identity_same_speech", person=other_person),
            change(matched, condition="other_identity_other_speech", person=other_person, speech=other),
        )
    }
    return Group(number, emotion, brow_emotion, query, tuple(keys[name] for name in COMPARISON_CONDITIONS))


def _draw_speech(
    rng: np.random.Generator, pool: Float[np.ndarray, "n 4"]
) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "4"], Float[np.ndarray, "4"]]:
    """A mouth shape, one clearly different and one slightly different."""
    while True:
        speech = pool[rng.integers(len(pool))]
        distance = speech_distance(pool, speech)
        far, near = (
            np.flatnonzero((distance >= low) & (distance <= high)) for low, high in (OTHER_SPEECH, SMALL_CHANGE)
        )
        if len(far) and len(near):
            return speech, pool[rng.choice(far)], pool[rng.choice(near)]


@functools.lru_cache(maxsize=4)
def _renderer(person: int, size: int) -> Renderer:
    return Renderer(sample_person(person), size=size)


def draw_still(still: Still, group: Group, *, size: int) -> Drawing:
    """Returns the picture and landmarks of a frame."""
    expression, pose = compose(still.emotion, still.speech, still.intensity, still.blink, still.turn)
    if still.condition == "brow_only":
        units = EMOTION_UNITS[group.brow_emotion]
        upper = {name: units[name] * still.intensity for name in UPPER_FACE_UNITS if name in units}
        expression = expression + expression_vector(upper)
    return _renderer(still.person, size).draw(expression, pose)


def write_records(
    directory: Path, settings: ComparisonSettings, *, workers: int = 1, advance: Callable[[int], None] | None = None
) -> Manifest:
    """Adds the comparisons to a data set that was prepared from synthetic clips, as split "comparisons".

    The people are the data set's validation speakers; faces are cut out as its own were.

    Args:
      directory: The data set.
      settings: What to draw.
      workers: Processes.
      advance: Called with the number of groups done since the last call.

    Returns:
      The new manifest.

    Raises:
      InputError: No data set, or its validation speakers are not synthetic people.
    """
    manifest = read_manifest(directory)
    people = held_out_people(manifest)
    groups = plan_groups(people, settings)
    crop: CropMode = "released" if manifest.settings.get("clips", {}).get("crop") == "released" else "corrected"
    draw = functools.partial(_draw_group, size=settings.size, image_size=manifest.image_size, crop=crop)
    frames: list[FrameRecord] = []
    comparisons: list[ComparisonRecord] = []
    for group, drawn in zip(groups, _parallel(draw, groups, workers), strict=True):
        frames += drawn
        comparisons += _comparisons(group, drawn)
        if advance is not None:
            advance(1)
    return extend_dataset(directory, COMPARISON_SPLIT, frames, comparisons)


def held_out_people(manifest: Manifest) -> list[int]:
    """Returns the seeds of a data set's validation speakers.

    Raises:
      InputError: One of them has no name of a synthetic person.
    """
    people = []
    for speaker in manifest.speakers("validation"):
        match = re.fullmatch(r"syn(\d+)", speaker)
        if match is None:
            raise InputError(f"validation speaker {speaker!r} is no synthetic person (syn000, ...): nothing to draw")
        people.append(int(match[1]))
    return people


def _parallel(
    draw: functools.partial[list[FrameRecord]], groups: list[Group], workers: int
) -> Iterable[list[FrameRecord]]:
    if workers == 1:
        yield from map(draw, groups)
        return
    with process_pool(min(workers, len(groups))) as pool:
        yield from pool.imap(draw, groups, chunksize=max(1, min(6, len(groups) // (4 * workers))))


def _draw_group(group: Group, *, size: int, image_size: int, crop: CropMode) -> list[FrameRecord]:
    """Frames of a group, the query's first."""
    records = []
    for still in (group.query, *group.keys):
        drawing = draw_still(still, group, size=size)
        face = crop_face(drawing.image, drawing.landmarks, size=image_size, mode=crop)
        speaker = f"syn{still.person:03d}"
        emotion = group.brow_emotion if still.condition == "brow_only" else still.emotion
        same = np.array_equal(still.speech, group.query.speech)
        sentence = f"cmp-{group.number:04d}" + (
            "" if same else f"-{'small' if 'small' in still.condition else 'other'}"
        )
        records.append(
            FrameRecord(
                image=encode_jpeg(face.image),
                speaker=speaker,
                emotion=emotion,
                sentence=sentence,
                clip=f"{speaker}/{emotion}/{sentence}/{still.condition}",
                frame=0,
                time_s=0.0,
                landmarks=face.landmarks,
                crop_box=face.box,
            )
        )
    return records


def _comparisons(group: Group, frames: Sequence[FrameRecord]) -> list[ComparisonRecord]:
    query, *keys = frames
    return [
        ComparisonRecord(
            group=group.number,
            condition=still.condition,
            query_clip=query.clip,
            query_frame=0,
            key_clip=key.clip,
            key_frame=0,
            speaker=query.speaker,
            emotion=group.emotion,
            speech_distance=float(speech_distance(still.speech, group.query.speech)),
        )
        for still, key in zip(group.keys, keys, strict=True)
    ]
