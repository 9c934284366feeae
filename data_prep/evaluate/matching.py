"""Which real clip each manipulated one was made from, and which one shows what it should show."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asccl_jax.data.schema import EMOTIONS
from data_prep.clips import Clip, Problem, one_spelling, sentence_key, with_speaker
from data_prep.evaluate.inputs import ClipSet, GivenClip
from data_prep.layouts import VIDEO_SUFFIXES, located

__all__ = ["Matched", "match_clips", "one_spelling_of_speakers"]

_NEUTRAL = EMOTIONS[0]


@dataclasses.dataclass(frozen=True)
class Matched:
    """A manipulated clip and its counterparts.

    Attributes:
      fake: The manipulated clip; its emotion is the one that was asked for.
      source: The real clip it was made from, or None where none is known.
      truth: The real clip that shows what it should show, or None.
      truth_named: Whether the list named the truth; else it is only one if it has as many frames.
      remark: Why there is no source, or nothing.
    """

    fake: GivenClip
    source: Clip | None
    truth: Clip | None
    truth_named: bool
    remark: str = ""


def one_spelling_of_speakers(
    fake: ClipSet, real: ClipSet, sources: ClipSet | None
) -> tuple[ClipSet, ClipSet, ClipSet | None]:
    """Returns the sets with speakers who differ in spelling only, "Anna" and "anna", spelled as one."""
    given = [one for one in (fake, real, sources) if one is not None]
    spellings = one_spelling(one.clip.speaker for one_set in given for one in one_set.clips)

    def respelled(clips: ClipSet) -> ClipSet:
        renamed = (
            dataclasses.replace(one, clip=with_speaker(one.clip, spellings[one.clip.speaker])) for one in clips.clips
        )
        return dataclasses.replace(clips, clips=tuple(renamed))

    return respelled(fake), respelled(real), None if sources is None else respelled(sources)


def match_clips(
    fake: ClipSet, sources: ClipSet | None, real: ClipSet, *, prefer: Literal["neutral", "same"] = "neutral"
) -> tuple[list[Matched], list[Problem]]:
    """Returns every manipulated clip with its counterparts, and those whose list names what is not there.

    A source is found by the list's column `source`, else by speaker and sentence; among several of those the one of
    the preferred emotion counts. A truth is found by the column `truth`, else it is the real clip of the same speaker,
    sentence and emotion, provided that it turns out to have as many frames of the same size.

    Args:
      fake: Manipulated clips.
      sources: What they were made from; None leaves only what their list names.
      real: Real clips.
      prefer: Emotion of a source where several fit: neutral (cross-ID), or the one asked for (intra-ID).
    """
    matched, problems = [], []
    for given in fake.clips:
        clip = given.clip
        try:
            source, remark = _source(given, sources, prefer)
            truth = _named(given, given.truth, real, "truth") if given.truth else _same_words(clip, real)
        except LookupError as error:
            problems.append(Problem(clip.clip_id, str(error.args[0])))
            continue
        matched.append(Matched(given, source, truth, bool(given.truth), remark))
    return matched, problems


def _source(given: GivenClip, sources: ClipSet | None, prefer: str) -> tuple[Clip | None, str]:
    if given.source:
        return _named(given, given.source, sources, "source"), ""
    if sources is None:
        return None, "no --source, and no column `source` in the list of --fake"
    clip = given.clip
    fitting = [
        one.clip for one in sources.clips if (one.clip.speaker, one.clip.sentence) == (clip.speaker, clip.sentence)
    ]
    if not fitting and len(sources.clips) == 1 and sources.single:
        return sources.clips[0].clip, ""
    wanted = clip.emotion if prefer == "same" else _NEUTRAL
    chosen = [one for one in fitting if one.emotion == wanted] or fitting
    chosen = [one for one in chosen if one.name == clip.name] or chosen  # of several takes, the same
    if len(chosen) == 1:
        return chosen[0], ""
    if not chosen:
        return None, f"--source has no clip of {clip.speaker} saying {clip.sentence}"
    raise LookupError(
        f"{len(chosen)} clips of --source fit ({', '.join(one.clip_id for one in chosen[:3])}); name one in a column"
        " `source` of the list of --fake"
    )


def _named(given: GivenClip, name: str, among: ClipSet | None, what: str) -> Clip:
    """The clip that a cell names: by id, by path, by file name, or a video outside the set."""
    clips = [] if among is None else [one.clip for one in among.clips]
    path = located(given.base, name)
    for fits in (
        [one for one in clips if one.clip_id == name]
        or [one for one in clips if _id_key(one.clip_id) == _id_key(name)],
        [one for one in clips if path.exists() and one.video.resolve() == path.resolve()],
        [one for one in clips if name in (one.video.name, one.video.stem)],
    ):
        if len(fits) == 1:
            return fits[0]
    if path.is_dir() or (path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES):
        clip = given.clip
        return Clip(
            clip_id=Path(name).with_suffix("").as_posix(),
            speaker=clip.speaker,
            emotion=_NEUTRAL if what == "source" else clip.emotion,
            sentence=clip.sentence,
            name=path.stem,
            video=path,
        )
    where = "" if among is None else f" of {among.option}"
    raise LookupError(f"{what} {name!r}: neither a clip{where} (by id or file name) nor a video")


def _id_key(clip_id: str) -> str:
    return "/".join(map(sentence_key, clip_id.split("/")))


def _same_words(clip: Clip, real: ClipSet) -> Clip | None:
    wanted = (clip.speaker, clip.sentence, clip.emotion)
    found = [one.clip for one in real.clips if (one.clip.speaker, one.clip.sentence, one.clip.emotion) == wanted]
    return found[0] if len(found) == 1 else None
