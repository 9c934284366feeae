"""Which sequences a renderer is trained on, and which are kept to judge it by."""

from __future__ import annotations

from collections.abc import Sequence

from asccl_jax.data.aligned_frames import AlignedClips
from asccl_jax.data.sequences import RenderSequences

__all__ = ["training_and_held_out"]

_SHARE = 0.1
"""Of the sequences, where no clip of the people trained on is marked as held out."""


def training_and_held_out(
    clips: AlignedClips, *, speakers: Sequence[str], frames_per_sequence: int, length: int, chunk: int
) -> tuple[RenderSequences, RenderSequences]:
    """Returns the sequences to train on, and the held-out ones; the same single one twice if there is no other.

    Data split by speakers, or not at all, gives up its last training sequences: a renderer is judged by the people it
    has learnt.

    Args:
      clips: Where the frames come from.
      speakers: People to train on; all if there are none.
      frames_per_sequence: See `RenderSequences`.
      length: Frames generated of a sequence in the first epochs, lowered to a multiple of the chunk.
      chunk: See `RenderSequences`.

    Raises:
      InputError: No sequence is long enough, or sizes that make no sense.
    """
    # The first length is the shortest: whatever fits it takes part in some stage.
    shortest = max(length // max(chunk, 1), 1) * chunk

    def cut(split: str) -> RenderSequences:
        return RenderSequences(
            clips, split, speakers=speakers, frames_per_sequence=frames_per_sequence, length=shortest, chunk=chunk
        )

    trained = {entry.speaker for entry in clips.clips.values() if entry.split == "train"}
    if any(entry.split == "validation" and entry.speaker in trained for entry in clips.clips.values()):
        return cut("train"), cut("validation")
    return cut("train").parted(_SHARE)
