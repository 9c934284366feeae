"""A clip to be prepared: who says what in which emotion, and where its picture and sound lie."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.track_list import clip_file_name

__all__ = ["Clip", "Problem", "emotion_name", "reject_duplicates", "sentence_key"]

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
    name = spelling.strip().casefold()
    if name in EMOTIONS:
        return name
    known = _EMOTION_SPELLINGS.get(name)
    if known is None:
        raise ValueError(f"emotion {spelling!r} is not one of {', '.join(EMOTIONS)}")
    return known


def sentence_key(text: str) -> str:
    """Returns what two clips are compared by: an id as it stands, running text without case and punctuation.

    >>> sentence_key("s003"), sentence_key("That is her  dog.") == sentence_key("that is her dog")
    ('s003', True)
    """
    text = text.strip()
    if re.fullmatch(r"[\w.-]+", text):
        return text
    return re.sub(r"\W+", "-", text.casefold()).strip("-")


def reject_duplicates(clips: Iterable[Clip]) -> tuple[list[Clip], list[Problem]]:
    """Returns the clips in the order of their ids, and those refused because another has the same id."""
    kept: dict[str, Clip] = {}
    problems = []
    for clip in clips:
        if clip.clip_id in kept:
            problems.append(
                Problem(
                    f"{clip.clip_id} ({clip.video})", f"duplicate clip id, first seen at {kept[clip.clip_id].video}"
                )
            )
        else:
            kept[clip.clip_id] = clip
    return [kept[clip_id] for clip_id in sorted(kept)], problems
