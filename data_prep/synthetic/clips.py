"""Writes a data set of talking heads: videos with sound, landmarks beside them, the truth, and a list of clips."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8

from asccl_jax.data.atomic import atomic_file, write_atomically
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.performance import act, in_emotion
from data_prep.synthetic.process_pool import process_pool
from data_prep.synthetic.renderer import Renderer
from data_prep.synthetic.speech import deliver, make_sentence
from data_prep.synthetic.voice import SAMPLE_RATE, speak

__all__ = [
    "CLIPS_CSV",
    "ClipPlan",
    "ClipSetSettings",
    "VideoSettings",
    "plan_clips",
    "write_clip",
    "write_clip_set",
    "write_clips",
]

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
