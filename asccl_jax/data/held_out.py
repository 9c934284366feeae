"""Which sequences a renderer is trained on, and which are kept to judge it by."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

from asccl_jax.data.aligned_frames import AlignedClips, RenderedClip
from asccl_jax.data.sequences import CONTEXT, RenderSequences, sequence_items
from asccl_jax.errors import InputError

__all__ = ["training_and_held_out"]

_SHARE = 0.1
"""Of the clips of a person in an emotion, where no clip of the people trained on is marked as held out."""


def training_and_held_out(
    clips: AlignedClips, *, speakers: Sequence[str], frames_per_sequence: int, length: int, chunk: int
) -> tuple[RenderSequences, RenderSequences]:
    """Returns the sequences to train on, and the held-out ones; the same ones twice if no clip can be divided.

    A renderer is judged by the people it has learnt. Where clips of theirs are marked "validation", those are held out.
    Data split by speakers, or not at all, gives up some of what is marked "train": of every person in every emotion

    * a tenth of the clips, whole, drawn by a hash of their ids;
    * of two to nine clips the shortest one: each is more than a tenth;
    * of a single clip the last tenth of its frames, at least one sequence, unless the rest is too short to train on.

    So every person is trained on in every emotion, and no frame is on both sides. Clips without a sequence long enough
    count for nothing, and those marked "test" are never read.

    Args:
      clips: Where the frames come from.
      speakers: People to train on; all if there are none.
      frames_per_sequence: See `RenderSequences`.
      length: Frames generated of a sequence in the first epochs, lowered to a multiple of the chunk.
      chunk: See `RenderSequences`.

    Raises:
      InputError: Unknown speakers, nothing marked "train", no sequence long enough, or sizes that make no sense.
    """
    # The first length is the shortest: whatever fits it takes part in some stage.
    shortest = max(length // max(chunk, 1), 1) * chunk

    def cut(chosen: Iterable[RenderedClip]) -> RenderSequences:
        return RenderSequences(clips, chosen, frames_per_sequence=frames_per_sequence, length=shortest, chunk=chunk)

    training = _of_split(clips, speakers, "train")
    learnt = {entry.speaker for entry in training}
    if marked := [entry for entry in _of_split(clips, speakers, "validation") if entry.speaker in learnt]:
        return cut(training), cut(marked)
    everything = cut(training)
    parting = _Parting(frames_per_sequence, shortest)
    groups: dict[tuple[str, str], list[RenderedClip]] = collections.defaultdict(list)
    for entry in training:
        if parting.frames(entry):
            groups[entry.speaker, entry.emotion].append(entry)
    parts = [parting.of_group(group) for group in groups.values()]
    held_out = [entry for _, kept in parts for entry in kept]
    if not held_out:
        return everything, everything
    return cut(entry for trained, _ in parts for entry in trained), cut(held_out)


def _of_split(clips: AlignedClips, speakers: Sequence[str], split: str) -> list[RenderedClip]:
    present = {entry.speaker for entry in clips.clips.values()}
    if absent := sorted(set(speakers) - present):
        raise InputError(f"no clip of {', '.join(absent)}: there are clips of {', '.join(sorted(present))}")
    chosen = [entry for entry in clips.clips.values() if not speakers or entry.speaker in speakers]
    found = [entry for entry in chosen if entry.split == split]
    if split == "train" and not found:
        marks = ", ".join(sorted({entry.split for entry in chosen})) or "nothing"
        raise InputError(
            f"no clip to train on: all {len(chosen)} of {', '.join(speakers) or 'all speakers'} are marked {marks};"
            " prepare them with other --test-speakers and --validation-speakers"
        )
    return found


@dataclasses.dataclass(frozen=True)
class _Parting:
    """How the clips of one person in one emotion are parted, given about how long items are and what must fit them."""

    frames_per_sequence: int
    length: int

    def frames(self, clip: RenderedClip) -> int:
        """Frames that can be used."""
        items = sequence_items(clip, self.frames_per_sequence)
        return sum(item.frames for item in items if item.fits(self.length))

    def of_group(self, group: Sequence[RenderedClip]) -> tuple[list[RenderedClip], list[RenderedClip]]:
        """What to train on, and what to hold out; nothing of a single clip that cannot be divided."""
        if len(group) == 1:
            return self._of_clip(group[0])
        drawn = sorted(group, key=_hash)
        if _SHARE * len(group) < 1:
            drawn.sort(key=self.frames)
        count = max(round(_SHARE * len(group)), 1)
        return drawn[count:], drawn[:count]

    def _of_clip(self, clip: RenderedClip) -> tuple[list[RenderedClip], list[RenderedClip]]:
        needed = self.length + CONTEXT
        wanted = max(round(_SHARE * self.frames(clip)), needed)
        before, after = list(clip.runs), list[tuple[int, int]]()
        while before and wanted >= needed:
            first, last = before.pop()
            cut = max(first, last + 1 - wanted)
            after.insert(0, (cut, last))
            if cut > first:
                before.append((first, cut - 1))
            # A run too short for a sequence goes along and counts for nothing.
            if last + 1 - first >= needed:
                wanted -= last + 1 - cut
        parts = [dataclasses.replace(clip, runs=tuple(runs)) for runs in (before, after)]
        return ([parts[0]], [parts[1]]) if all(map(self.frames, parts)) else ([clip], [])


def _hash(clip: RenderedClip) -> bytes:
    return hashlib.sha256(clip.clip.encode(errors="surrogateescape")).digest()
