"""A clip to be prepared: who says what in which emotion, and where its picture and sound lie."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import clip_file_name

__all__ = [
    "Clip",
    "Problem",
    "emotion_name",
    "name_key",
    "one_spelling",
    "reject_duplicates",
    "sentence_key",
    "with_speaker",
]

_EMOTION_SPELLINGS = {
    "calm": None,
    "contempt": None,
    "anger": "angry",
    "disgust": "disgusted",
    "fearful": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprise": "surprised",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """One video, or folder of frames, of one person saying one sentence in one emotion.

    Attributes:
      clip_id: "SPEAKER/EMOTION/NAME[/TAKE]", unique in a data set.
      speaker: Who speaks.
      emotion: One of the schema's seven.
      sentence: What is said: equal for two clips exactly if the words are.
      name: The data set's own name of the clip within speaker and emotion; the pair list `aligned_path36.json`
        and transcripts go by it.
      video: Video file, or a folder of numbered frames.
      audio: Sound file, or None where the sound is in the video file.
      landmarks: Landmark file given for this very clip, or None to look beside the video.
      split: "train", "validation" or "test" where the input says so.
    """

    clip_id: str
    speaker: str
    emotion: str
    sentence: str
    name: str
    video: Path
    audio: Path | None = None
    landmarks: Path | None = None
    split: str | None = None

    @property
    def file_name(self) -> str:
        """The clip's id as one harmless file name, unlike that of any other clip."""
        return clip_file_name(self.clip_id)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something the report names.

    Attributes:
      subject: Clip id, pair of ids, or path.
      reason: What is wrong with it, one line.
      outcome: "dropped" or, for a clip kept with a reservation, "kept".
    """

    subject: str
    reason: str
    outcome: Literal["dropped", "kept"] = "dropped"


def emotion_name(spelling: str) -> str:
    """Returns the schema's name of an emotion, whichever way a data set spells it.

    Raises:
      ValueError: No such emotion, or one outside the seven (contempt, calm); the message is the reason.
    """
    name = name_key(spelling)
    if name in EMOTIONS:
        return name
    known = _EMOTION_SPELLINGS.get(name)
    if known is None:
        raise ValueError(f"emotion {spelling!r} is not one of {', '.join(EMOTIONS)}")
    return known


def name_key(name: str) -> str:
    """Returns what names are compared by: composed letters, no case, no spaces around and single ones within.

    >>> name_key(" Zoe\u0308  M") == name_key("Zo\u00eb m")
    True
    """
    composed = unicodedata.normalize("NFC", name).casefold()
    return " ".join(unicodedata.normalize("NFC", composed).split())


def sentence_key(text: str) -> str:
    """Returns what sentences are compared by: composed letters without case, spaces or punctuation.

    An id of letters, digits, dots and dashes keeps those that stand within it. Signs such as + and $, and the marks of
    scripts that write vowels with them, are part of the words. A text of punctuation alone stands as it is.

    >>> sentence_key("Hello."), sentence_key("s-003"), sentence_key("That is her  dog!")
    ('hello', 's-003', 'that-is-her-dog')
    """
    words = name_key(text)
    if re.fullmatch(r"[\w.-]+", words):
        return words.strip(".-") or words
    kept = "".join(letter if _is_spoken(letter) else "-" for letter in words if unicodedata.category(letter) != "Cf")
    return re.sub("-+", "-", kept).strip("-") or words.replace("/", "-")


def _is_spoken(letter: str) -> bool:
    return letter.isalnum() or letter == "_" or unicodedata.category(letter) in ("Mn", "Mc", "Sm", "Sc", "So")


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Returns for each name the spelling under which all that are equal but for spelling go.

    >>> one_spelling(["anna", "Bob", "Anna"])
    {'anna': 'Anna', 'Bob': 'Bob', 'Anna': 'Anna'}
    """
    names = list(names)
    chosen: dict[str, str] = {}
    for name in sorted(names):
        chosen.setdefault(name_key(name), unicodedata.normalize("NFC", name))
    return {name: chosen[name_key(name)] for name in names}


def with_speaker(clip: Clip, speaker: str) -> Clip:
    """Returns a clip whose speaker is spelled in another way."""
    rest = clip.clip_id.removeprefix(clip.speaker)
    clip_id = speaker + rest if rest != clip.clip_id else clip.clip_id
    return dataclasses.replace(clip, speaker=speaker, clip_id=clip_id)


def reject_duplicates(clips: Iterable[Clip]) -> tuple[list[Clip], list[Problem]]:
    """Returns the clips in the order of their ids, and those refused because another has the same id.

    A speaker who is spelled in several ways ("Anna", "anna") is one, and said to be taken for one.
    """
    clips = list(clips)
    spellings = one_spelling(clip.speaker for clip in clips)
    kept: dict[str, Clip] = {}
    problems = [
        Problem(name, f"taken for speaker {chosen!r}, from whom it differs in spelling only", "kept")
        for name, chosen in sorted(spellings.items())
        if name_key(name) in {name_key(other) for other in spellings if other != name}
        and unicodedata.normalize("NFC", name) != chosen
    ]
    for clip in (with_speaker(clip, spellings[clip.speaker]) for clip in clips):
        if clip.clip_id in kept:
            problems.append(
                Problem(
                    f"{clip.clip_id} ({clip.video})", f"duplicate clip id, first seen at {kept[clip.clip_id].video}"
                )
            )
        else:
            kept[clip.clip_id] = clip
    return [kept[clip_id] for clip_id in sorted(kept)], problems
