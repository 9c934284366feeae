"""Which real clip each manipulated one was made from, and which one shows what it should show."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import fft

from asccl_jax.data.schema import EMOTIONS
from data_prep.evaluate.inputs import ClipSet, GivenClip
from data_prep.media.clips import Clip, Problem, one_spelling, sentence_key, with_speaker
from data_prep.media.decode import SAMPLE_RATE, Sound
from data_prep.media.layouts import VIDEO_SUFFIXES, located

__all__ = [
    "ClipClock",
    "Matched",
    "alike",
    "from_first_picture",
    "match_clips",
    "nearest_rows",
    "one_spelling_of_speakers",
    "sound_shift",
]

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


# Which frame of one clip belongs to which of another: by their times, counted from what is heard in both.

_USUAL_S = 1 / 30
_LONGEST_S = 60.0
"""Sound that is compared: the loudest minute."""

_REACH_S = 5.0
_LEAST_CORRELATION = 0.5
"""Below it, two sounds are not the same; what codecs leave of a sound correlates by .9 and more with it."""

_EQUAL = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class ClipClock:
    """When the frames of a clip are shown.

    Attributes:
      times_s: Of each frame, the first one's zero.
    """

    times_s: Float[np.ndarray, " t"]

    @property
    def period_s(self) -> float:
        """Usual time from a frame to the next."""
        return float(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else _USUAL_S

    @property
    def span_s(self) -> float:
        """From the first frame to the end of the last."""
        return float(self.times_s[-1]) + self.period_s

    @property
    def rate_fps(self) -> float:
        """Mean frames a second."""
        return len(self.times_s) / self.span_s


def alike(first: ClipClock, second: ClipClock) -> bool:
    """Returns whether both show as many frames at the same times, within half a frame."""
    if len(first.times_s) != len(second.times_s):
        return False
    return bool(np.abs(first.times_s - second.times_s).max() <= min(first.period_s, second.period_s) / 2)


def nearest_rows(clock: ClipClock, wanted_s: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Returns for each time the frame that is nearest to it, or -1 before the first and after the end of the last.

    >>> nearest_rows(ClipClock(np.array([0.0, 0.1, 0.2])), np.array([-0.1, 0.04, 0.06, 0.24, 0.3])).tolist()
    [-1, 0, 1, 2, -1]

    Args:
      clock: Of the clip.
      wanted_s: Times, rising or not.
    """
    times = clock.times_s
    after = np.clip(np.searchsorted(times, wanted_s), 1, max(1, len(times) - 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    # A tie goes to the earlier frame, whatever rounding says.
    rows = np.where(times[after] - wanted_s < wanted_s - times[before] - 1e-6, after, before)
    half = clock.period_s / 2 + 1e-6
    return np.where((wanted_s < -half) | (wanted_s > times[-1] + half), -1, rows)


def from_first_picture(sound: Sound) -> Float[np.ndarray, " n"]:
    """Returns the samples of a sound from the moment of the first picture on."""
    shift = round(sound.start_s * SAMPLE_RATE)
    return np.pad(sound.samples, (shift, 0)) if shift > 0 else sound.samples[-shift:]


def sound_shift(source: Sound, other: Sound) -> float | None:
    """Returns by how many seconds a sound comes later in one clip than in its source, each from its first picture on.

    It is the shift at which the waveforms agree best, so that it does not matter how a file says when its sound starts;
    the smallest among equals. Shifts of up to five seconds are looked at.

    Args:
      source: Sound of the source.
      other: Sound of the other clip.

    Returns:
      The shift; None where the two are not the same sound, or there is silence.
    """
    first, second = (one.samples.astype(np.float64) for one in (source, other))
    apart = other.start_s - source.start_s
    begin = _loudest(first)
    first = first[begin : begin + round(_LONGEST_S * SAMPLE_RATE)]
    reach = round(_REACH_S * SAMPLE_RATE)
    start = max(0, begin - round(apart * SAMPLE_RATE) - reach)
    second = second[start : start + len(first) + 2 * reach]
    if not len(first) or not len(second):
        return None
    apart += (start - begin) / SAMPLE_RATE
    size = fft.next_fast_len(len(first) + len(second), real=True)
    products = fft.irfft(fft.rfft(second, size) * np.conj(fft.rfft(first, size)), size)
    shifts = np.arange(-len(first) + 1, len(second))
    overlaps = np.minimum(len(first), len(second) - shifts) - np.maximum(0, -shifts)
    near = np.abs(shifts / SAMPLE_RATE + apart) <= _REACH_S
    shifts = shifts[near & (overlaps >= min(len(first), len(second)) / 2)]
    if not len(shifts):
        return None
    powers = [np.concatenate([[0.0], np.cumsum(samples**2)]) for samples in (first, second)]
    begins, ends = np.maximum(0, -shifts), np.minimum(len(first), len(second) - shifts)
    shared = (powers[0][ends] - powers[0][begins]) * (powers[1][ends + shifts] - powers[1][begins + shifts])
    floor = 1e-9 * powers[0][-1] * powers[1][-1]
    if floor <= 0:
        return None
    agreement = np.where(shared > floor, products[shifts] / np.sqrt(np.maximum(shared, floor)), 0.0)
    if agreement.max() < _LEAST_CORRELATION:
        return None
    best = shifts[agreement >= agreement.max() - _EQUAL] / SAMPLE_RATE + apart
    return float(best[np.abs(best).argmin()])


def _loudest(samples: Float[np.ndarray, " n"]) -> int:
    """Where the loudest minute begins."""
    length = round(_LONGEST_S * SAMPLE_RATE)
    if len(samples) <= length:
        return 0
    power = np.concatenate([[0.0], np.cumsum(samples**2)])
    begins = np.arange(0, len(samples) - length + 1, SAMPLE_RATE)
    return int(begins[(power[begins + length] - power[begins]).argmax()])
