"""Which clips are trained on, selected by, and kept to report on: whole speakers, unless the input says so."""

from __future__ import annotations

from collections.abc import Sequence

from asccl_jax.data.test_speakers import TEST_SPEAKERS
from asccl_jax.errors import InputError
from data_prep.clips import Clip, name_key

__all__ = ["MEAD_VALIDATION_SPEAKER", "assign_splits", "named_speakers"]

MEAD_VALIDATION_SPEAKER = "W021"
"""The speaker whom the released code holds out."""

_HELD_OUT = 0.1


def assign_splits(
    clips: Sequence[Clip],
    *,
    layout: str = "list",
    validation_speakers: Sequence[str] = (),
    test_speakers: Sequence[str] | None = None,
) -> dict[str, str]:
    """Returns the split, "train", "validation" or "test", of each clip by its id.

    Nothing trains on "test" or selects by it. It holds the test speakers, those of `TEST_SPEAKERS` where none are
    named (of whom some may be absent; if nobody else is there, they are ordinary speakers: somebody must train), and
    what the clips themselves mark so.

    Of the others, named speakers are held out for validation first of all. Else the clips' own marks count, where any
    is marked "train" or "validation" (clips without a mark train). Else MEAD holds out W021, where it is there, and
    anything else the last tenth of all speakers, at least one. A single speaker is not held out: there would be nothing
    to train on.

    Args:
      clips: What to split.
      layout: One of `layouts.LAYOUTS`, or another that has no test speakers.
      validation_speakers: Speakers to hold out.
      test_speakers: Speakers to report on; none at all takes even the marks off the clips, None takes the default.

    Raises:
      InputError: A named speaker is not there or is named for both, or no other is left to train on.
    """
    speakers = sorted({clip.speaker for clip in clips})
    test = _test_speakers(speakers, layout, test_speakers)
    named = _named(speakers, validation_speakers, "--validation-speakers")
    if both := sorted(test & named):
        raise InputError(
            f"--validation-speakers {', '.join(both)}: test speakers, whom nothing may be selected by; choose others,"
            " or say whom to report on instead: --test-speakers NAME,NAME, or --test-speakers none"
        )
    marked = {clip.clip_id for clip in clips if clip.split == "test" and test_speakers is None}
    splits = {clip.clip_id: "test" for clip in clips if clip.speaker in test or clip.clip_id in marked}
    rest = [clip for clip in clips if clip.clip_id not in splits]
    others = sorted({clip.speaker for clip in rest})
    if named:
        held_out = named
    elif any(clip.split in ("train", "validation") for clip in rest):
        own = {clip.clip_id: "validation" if clip.split == "validation" else "train" for clip in rest}
        return splits | own
    elif layout == "mead" and MEAD_VALIDATION_SPEAKER in others and len(others) > 1:
        held_out = {MEAD_VALIDATION_SPEAKER}
    else:
        count = min(max(1, int(_HELD_OUT * len(speakers))), len(others) - 1)
        held_out = set(others[len(others) - count :])
    splits |= {clip.clip_id: "validation" if clip.speaker in held_out else "train" for clip in rest}
    if "train" not in splits.values():
        raise InputError(
            "test and validation speakers are all there are: none is left to train on; see --test-speakers,"
            " --validation-speakers and the column split of a list"
        )
    return splits


def named_speakers(words: str) -> tuple[str, ...]:
    """Returns the speakers that an option names.

    >>> named_speakers("M003, W015"), named_speakers("none")
    (('M003', 'W015'), ())
    """
    names = tuple(filter(None, (word.strip() for word in words.split(","))))
    return () if names == ("none",) else names


def _test_speakers(speakers: Sequence[str], layout: str, asked: Sequence[str] | None) -> set[str]:
    if asked is None:
        usual = {name_key(name) for name in TEST_SPEAKERS.get(layout, ())}
        found = {speaker for speaker in speakers if name_key(speaker) in usual}
        return found if found < set(speakers) else set()
    found = _named(speakers, asked, "--test-speakers")
    if found == set(speakers):
        raise InputError("--test-speakers names every speaker: none is left to train on")
    return found


def _named(speakers: Sequence[str], asked: Sequence[str], option: str) -> set[str]:
    """The speakers that an option names, in whatever spelling."""
    known = {name_key(speaker): speaker for speaker in speakers}
    if unknown := sorted(name for name in asked if name_key(name) not in known):
        raise InputError(f"{option} {', '.join(unknown)}: not among {', '.join(speakers)}")
    return {known[name_key(name)] for name in asked}
