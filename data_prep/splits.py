"""Which clips are held out: whole speakers, unless the input says otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from asccl_jax.errors import InputError
from data_prep.clips import Clip

__all__ = ["MEAD_VALIDATION_SPEAKER", "assign_splits"]

MEAD_VALIDATION_SPEAKER = "W021"
"""The speaker whom the released code holds out."""

_HELD_OUT = 0.1


def assign_splits(
    clips: Sequence[Clip], *, layout: str = "list", validation_speakers: Sequence[str] = ()
) -> dict[str, str]:
    """Returns the split, "train" or "validation", of each clip by its id.

    Named speakers are held out first of all. Else the clips' own splits count, where any has one (clips without one
    train). Else MEAD holds out W021, where it is there, and anything else the last tenth of its speakers, at least
    one. A single speaker is not held out: there would be nothing to train on.

    Raises:
      InputError: A named speaker is not there, or no other is left to train on.
    """
    speakers = sorted({clip.speaker for clip in clips})
    if validation_speakers:
        unknown = sorted(set(validation_speakers) - set(speakers))
        if unknown:
            raise InputError(f"--validation-speakers {', '.join(unknown)}: not among {', '.join(speakers)}")
        held_out = set(validation_speakers)
        if held_out == set(speakers):
            raise InputError("--validation-speakers names every speaker: none is left to train on")
    elif any(clip.split for clip in clips):
        return {clip.clip_id: clip.split or "train" for clip in clips}
    elif layout == "mead" and MEAD_VALIDATION_SPEAKER in speakers and len(speakers) > 1:
        held_out = {MEAD_VALIDATION_SPEAKER}
    else:
        count = max(1, int(_HELD_OUT * len(speakers))) if len(speakers) > 1 else 0
        held_out = set(speakers[len(speakers) - count :])
    return {clip.clip_id: "validation" if clip.speaker in held_out else "train" for clip in clips}
