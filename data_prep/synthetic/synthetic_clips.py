"""Writes a data set of talking heads: videos with sound, landmarks beside them, the truth, and a list of clips."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import io
import itertools
import json
import multiprocessing
import multiprocessing.pool
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file, write_atomically
from data_prep.synthetic.action_units import VISEMES
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.person_renderer import Renderer
from data_prep.synthetic.speech import SAMPLE_RATE, act, compose, deliver, in_emotion, make_sentence, speak

__all__ = [
    "CLIPS_CSV",
    "ActorSetSettings",
    "ClipPlan",
    "ClipSetSettings",
    "VideoSettings",
    "contact_sheet",
    "plan_actors",
    "plan_clips",
    "process_pool",
    "write_actor_set",
    "write_clip",
    "write_clip_set",
    "write_clips",
    "write_contact_sheet",
]

# Worker processes that keep to one core each.

# Threads of the linear algebra libraries: in a pool they only wait for each other.
_SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[multiprocessing.pool.Pool]:
    """Gives a pool of fresh processes, safe whatever threads this process runs."""
    before = {name: os.environ.get(name) for name in _SINGLE}
    os.environ.update(_SINGLE)  # read by a library when it loads, so the children must be born with it
    try:
        pool = multiprocessing.get_context("spawn").Pool(workers)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    with pool:
        yield pool


CLIPS_CSV = "clips.csv"
_SETTINGS_JSON = "settings.json"
_FORMAT = 5
"""Raised when the same settings would give other pictures; clips of another format are not resumed."""


@dataclasses.dataclass(frozen=True)
class VideoSettings:
    """What all videos of a data set have in common.

    Attributes:
      seed: Of people, sentences and performances.
      size: Side of the video in pixels.
      syllables: Least and greatest length of a sentence.
      fps: Frames a second.
    """

    seed: int = 0
    size: int = 192
    syllables: tuple[int, int] = (5, 7)
    fps: int = 30

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        if self.size < 32 or self.size % 2:
            raise InputError(f"video size {self.size}: expected an even number of at least 32 pixels")
        if not 1 <= self.syllables[0] <= self.syllables[1]:
            raise InputError(f"syllables {self.syllables}: expected the least, at least 1, and the greatest count")


@dataclasses.dataclass(frozen=True)
class ClipSetSettings(VideoSettings):
    """What a data set of talking heads consists of; together with the code it determines every pixel.

    Attributes:
      identities: People to train on.
      validation_identities: People held out.
      sentences: Sentences a training person says, which no other person says.
      validation_sentences: Likewise for those held out.
      emotions_per_sentence: Emotional deliveries of each sentence beside the neutral one; the six take turns.
    """

    identities: int = 10
    validation_identities: int = 3
    sentences: int = 4
    validation_sentences: int = 2
    emotions_per_sentence: int = 2

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        super().__post_init__()
        for name in ("identities", "sentences", "emotions_per_sentence"):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)}: expected at least 1")
        if self.emotions_per_sentence > len(EMOTIONS) - 1:
            raise InputError(f"emotions per sentence {self.emotions_per_sentence}: there are {len(EMOTIONS) - 1}")


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """One clip to be made.

    Attributes:
      person: Seed of the speaker.
      speaker: Their name.
      emotion: One of the seven.
      sentence: Number of the sentence.
      split: "train" or "validation".
      seed: Of the performance.
      twin: Whether it is the neutral performance of that seed, put into the emotion at its usual strength and changed
        in nothing else, rather than one of its own.
    """

    person: int
    speaker: str
    emotion: str
    sentence: int
    split: str
    seed: int
    twin: bool = False

    @property
    def stem(self) -> str:
        """File name without ending."""
        return f"{self.speaker}_{self.emotion}_{self.sentence:03d}"


def plan_clips(settings: ClipSetSettings) -> list[ClipPlan]:
    """Returns all clips of a data set, a sentence's deliveries together."""
    plans: list[ClipPlan] = []
    feelings = itertools.cycle(EMOTIONS[1:])
    sentence = 0
    people = settings.identities + settings.validation_identities
    for index in range(people):
        split = "train" if index < settings.identities else "validation"
        person = settings.seed * 1000 + index
        for _ in range(settings.sentences if split == "train" else settings.validation_sentences):
            spoken = ["neutral", *itertools.islice(feelings, settings.emotions_per_sentence)]
            for emotion in spoken:
                seed = settings.seed * 1_000_000 + len(plans)
                plans.append(ClipPlan(person, f"syn{person:03d}", emotion, sentence, split, seed))
            sentence += 1
    return plans


@functools.lru_cache(maxsize=2)
def _renderer(person: int, size: int) -> Renderer:
    return Renderer(sample_person(person), size=size)


def write_clip(plan: ClipPlan, settings: VideoSettings, directory: Path) -> int:
    """Writes one clip, its video last, and returns how many frames were drawn: 0 if the clip is complete already.

    `clips/STEM.mp4` is the video, `clips/STEM.npz` its landmarks (key `lm68`, [T, 68, 2], pixels of the video, pixel
    centres at integers), `truth/STEM.npz` what was acted: the fields of `Performance`, the person's `identity` and
    seed, the `sounds` of the sentence and the times `bounds_s` between them.
    """
    video = directory / "clips" / f"{plan.stem}.mp4"
    if video.is_file():
        return 0
    renderer = _renderer(plan.person, settings.size)
    sentence = make_sentence(plan.sentence, seed=settings.seed, syllables=settings.syllables)
    delivery = deliver(sentence, "neutral" if plan.twin else plan.emotion, seed=plan.seed, fps=settings.fps)
    performance = act(delivery, seed=plan.seed)
    if plan.twin:
        performance = in_emotion(performance, plan.emotion)
    drawings = [renderer.draw(*frame) for frame in zip(performance.expression, performance.pose, strict=True)]
    sound = speak(renderer.person, delivery, seed=plan.seed)
    truth = dataclasses.asdict(performance) | {
        "identity": renderer.person.identity,
        "person_seed": np.array(plan.person),
        "sounds": np.array(sentence.sounds),
        "bounds_s": delivery.bounds_s,
    }
    with atomic_file(directory / "truth" / f"{plan.stem}.npz") as file:
        np.savez_compressed(file, **truth)
    with atomic_file(video.with_suffix(".npz")) as file:
        np.savez_compressed(file, lm68=np.stack([drawing.landmarks for drawing in drawings]))
    images = np.stack([drawing.image for drawing in drawings])
    write_atomically(video, encode_video(images, sound, fps=settings.fps))
    return len(drawings)


def encode_video(images: UInt8[np.ndarray, "t h w 3"], sound: Float[np.ndarray, " n"], *, fps: int) -> bytes:
    """Returns an mp4 file: H.264 video, AAC sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "15", "preset": "veryfast", "threads": "1"})
        video.height, video.width = images.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            piece = av.AudioFrame.from_ndarray(sound[None, start : start + 1024].copy(), format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    return buffer.getvalue()


def write_clip_set(settings: ClipSetSettings, directory: Path, *, workers: int = 1) -> Iterator[int]:
    """Writes a data set of talking heads, as `write_clips` does; yields the frames drawn per clip."""
    deliveries = 1 + settings.emotions_per_sentence
    return write_clips(plan_clips(settings), settings, directory, workers=workers, together=deliveries)


def write_clips(
    plans: list[ClipPlan], settings: VideoSettings, directory: Path, *, workers: int = 1, together: int = 1
) -> Iterator[int]:
    """Writes all clips that are not there yet and, after them, the list of clips; yields the frames drawn per clip.

    Args:
      plans: What to make.
      settings: How, and what the plans follow from.
      directory: Where; may hold clips of an earlier, interrupted run with the same settings.
      workers: Processes.
      together: Successive clips that one process makes: those of one person share what is drawn of them.

    Raises:
      InputError: The directory holds clips of other settings.
    """
    _claim(directory, settings)
    for folder in ("clips", "truth"):
        (directory / folder).mkdir(exist_ok=True)
    write = functools.partial(write_clip, settings=settings, directory=directory)
    if workers == 1:
        yield from map(write, plans)
    else:
        with process_pool(min(workers, len(plans))) as pool:
            yield from pool.imap_unordered(write, plans, chunksize=together)
    write_atomically(directory / CLIPS_CSV, _clip_list(plans))


def _claim(directory: Path, settings: VideoSettings) -> None:
    """Makes the directory and notes the settings in it, or checks that they are the ones noted there."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps({"format": _FORMAT, **dataclasses.asdict(settings)}))
    path = directory / _SETTINGS_JSON
    if not path.is_file():
        write_atomically(path, json.dumps(wanted, indent=2) + "\n")
        return
    found = json.loads(path.read_text())
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if differing:
        raise InputError(
            f"{directory} holds clips made with other settings ({', '.join(differing)}): "
            "choose another --output or delete it"
        )


def _clip_list(plans: list[ClipPlan]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "speaker", "emotion", "sentence", "split"])
    for plan in plans:
        writer.writerow([f"clips/{plan.stem}.mp4", plan.speaker, plan.emotion, f"{plan.sentence:03d}", plan.split])
    return text.getvalue()


# Videos of few actors in many emotions, to train renderers on, and what a perfect manipulation of some would show.
#
# Every training sentence of an actor is delivered in neutral and in several emotions, each with a timing and acting of
# its own. Every held-out sentence has one neutral clip, and the very same performance in each of the six emotions at
# their usual strength: frame t of these shows what frame t of the neutral video must become if only its emotion is
# changed. `truth/STEM.npz` says the same in numbers.


@dataclasses.dataclass(frozen=True)
class ActorSetSettings(VideoSettings):
    """What a set of actors consists of; together with the code it determines every pixel.

    Attributes:
      actors: People, all of them seen in training.
      sentences: Sentences each of them says in training, which no other says.
      held_out_sentences: Sentences each of them says in validation only.
      emotions_per_sentence: Emotional deliveries of a training sentence beside the neutral one; the six take turns.
    """

    actors: int = 2
    sentences: int = 6
    held_out_sentences: int = 1
    emotions_per_sentence: int = 6

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        super().__post_init__()
        for name, least in {"actors": 1, "sentences": 1, "held_out_sentences": 0, "emotions_per_sentence": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)}: expected at least {least}")
        if self.emotions_per_sentence > len(EMOTIONS) - 1:
            raise InputError(f"emotions per sentence {self.emotions_per_sentence}: there are {len(EMOTIONS) - 1}")


def plan_actors(settings: ActorSetSettings) -> list[ClipPlan]:
    """Returns all clips of a set, an actor's together and of these a sentence's."""
    plans: list[ClipPlan] = []
    feelings = itertools.cycle(EMOTIONS[1:])
    sentences = itertools.count()
    for person in range(settings.seed * 1000, settings.seed * 1000 + settings.actors):
        speaker = f"syn{person:03d}"
        for sentence in itertools.islice(sentences, settings.sentences):
            for emotion in ("neutral", *itertools.islice(feelings, settings.emotions_per_sentence)):
                seed = settings.seed * 1_000_000 + len(plans)
                plans.append(ClipPlan(person, speaker, emotion, sentence, "train", seed))
        for sentence in itertools.islice(sentences, settings.held_out_sentences):
            seed = settings.seed * 1_000_000 + len(plans)
            for emotion in EMOTIONS:
                plans.append(ClipPlan(person, speaker, emotion, sentence, "validation", seed, emotion != "neutral"))
    return plans


def write_actor_set(settings: ActorSetSettings, directory: Path, *, workers: int = 1) -> Iterator[int]:
    """Writes a set of actors, as `clips.write_clips` does; yields the frames drawn per clip."""
    together = min(len(EMOTIONS), settings.sentences * (1 + settings.emotions_per_sentence))
    return write_clips(plan_actors(settings), settings, directory, workers=workers, together=together)


# A picture of what the synthetic people can do: people by emotions, then emotions by mouth shapes.

_GAP = 3
_SHOWN_VISEMES = ("silence", "a", "e", "i", "o", "u", "f")
_SHOWN_EMOTIONS = ("neutral", "happy", "angry")

Picture = UInt8[np.ndarray, "h w 3"]


def contact_sheet(people: Sequence[int], *, size: int = 160) -> Picture:
    """Returns rows of people in all emotions, then one person's emotions in several mouth shapes.

    Args:
      people: Seeds; the first also shows the mouth shapes.
      size: Side of one picture in pixels.
    """
    rows = []
    for person in people:
        renderer = Renderer(sample_person(person), size=size)
        rows.append([_labelled(_picture(renderer, emotion, "silence", 0.0), emotion) for emotion in EMOTIONS])
    renderer = Renderer(sample_person(people[0]), size=size)
    for emotion in _SHOWN_EMOTIONS:
        turns = np.linspace(-0.25, 0.25, len(_SHOWN_VISEMES))
        pictures = [_picture(renderer, emotion, *shape) for shape in zip(_SHOWN_VISEMES, turns, strict=True)]
        rows.append([_labelled(*pair) for pair in zip(pictures, _SHOWN_VISEMES, strict=True)])
    return np.concatenate([_framed(np.concatenate([_framed(cell) for cell in row], 1)) for row in rows])


def write_contact_sheet(path: Path, people: Sequence[int], *, size: int = 160) -> None:
    """Writes a contact sheet as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        Image.fromarray(contact_sheet(people, size=size)).save(file, format="PNG")


def _picture(renderer: Renderer, emotion: str, viseme: str, yaw: float) -> Picture:
    expression, pose = compose(emotion, np.array(VISEMES[viseme]), 1.0, 0.0, np.array([0.0, yaw, 0.0]))
    return renderer.draw(expression, pose).image


def _labelled(picture: Picture, text: str) -> Picture:
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    pen.text((5, picture.shape[0] - 14), text, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)


def _framed(picture: Picture) -> Picture:
    return np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
