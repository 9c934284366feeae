"""Videos of few actors in many emotions, to train renderers on, and what a perfect manipulation of some would show.

Every training sentence of an actor is delivered in neutral and in several emotions, each with a timing and acting of
its own. Every held-out sentence has one neutral clip, and the very same performance in each of the six emotions at
their usual strength: frame t of these shows what frame t of the neutral video must become if only its emotion is
changed. `truth/STEM.npz` says the same in numbers.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError
from data_prep.synthetic.clips import ClipPlan, VideoSettings, write_clips

__all__ = ["ActorSetSettings", "plan_actors", "write_actor_set"]


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
