"""Who and what no network trains on: the papers' speakers, clips held out of a renderer's data."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asccl_jax.buckets import remote_address
from asccl_jax.data.aligned_frames import AlignedClips, RenderedClip
from asccl_jax.data.manifest import MANIFEST_NAME
from asccl_jax.data.sequences import CONTEXT, RenderSequences, sequence_items
from asccl_jax.data.tracks import LIST_NAME
from asccl_jax.errors import InputError
from asccl_jax.work import write_atomically

__all__ = [
    "SPEAKERS_FILE",
    "TEST_SPEAKERS",
    "leak_remarks",
    "learnt_speakers",
    "reported_split",
    "scored_on",
    "training_and_held_out",
    "write_speakers",
]

TEST_SPEAKERS: Mapping[str, tuple[str, ...]] = {
    "mead": ("M003", "M009", "M012", "M030", "W015", "W029"),
    "ravdess": tuple(f"Actor_{number:02d}" for number in range(1, 7)),
}
"""By layout of a data set, the speakers of the papers' tables, which `asccl evaluate` scores."""

SPEAKERS_FILE = "speakers.json"
"""File of a run that names the speakers it trains on, by split."""

_NETWORKS = (("init_from",), ("metric", "path"), ("mesh", "metric"))
"""Entries of a recipe that name networks trained before."""


def reported_split(splits: Iterable[str]) -> str:
    """Returns the split that results are reported on: "test" where there is one, else "validation"."""
    return "test" if "test" in splits else "validation"


def write_speakers(
    workdir: Path, speakers: Mapping[str, Collection[str]], config: Mapping[str, Any], *, goes_on: bool = False
) -> None:
    """Writes whom a run trains on and selects by, and whom the networks that it starts from have learnt.

    Args:
      workdir: Folder of the run.
      speakers: By split, what the run reads.
      config: Its recipe.
      goes_on: Whether it goes on from steps that it has made before, perhaps on other people.
    """
    before = _read(workdir / SPEAKERS_FILE) if goes_on else None
    learnt = {*before.get("train", ()), *before.get("earlier", ())} if before is not None else set[str]()
    for keys in _NETWORKS:
        entry: Any = config
        for key in keys:
            entry = entry.get(key, "") if isinstance(entry, Mapping) else ""
        if entry and (found := learnt_speakers(entry)) is not None:
            learnt |= found["train"]
    content = {**{split: sorted(names) for split, names in speakers.items()}, "earlier": sorted(learnt)}
    write_atomically(workdir / SPEAKERS_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def learnt_speakers(path: Path | str) -> dict[str, set[str]] | None:
    """Returns whom a network was trained on, "train", and selected by, "validation"; None where nobody knows.

    Args:
      path: Folder of a run, or of a network in one (`best/`); or records, or tracks, that something is trained on.
    """
    if remote_address(path) is not None:
        return None
    place = Path(path).resolve()
    for folder in (place, place.parent):
        if (found := _read(folder / SPEAKERS_FILE)) is not None:
            trained = {*found.get("train", ()), *found.get("earlier", ())}
            return {"train": trained, "validation": set(found.get("validation", ()))}
    for folder in (place, place.parent):
        # A run of before speakers were noted: its data may still be there.
        if (config := _read(folder / "config.json")) is not None:
            data = config.get("data", {})
            return _of_data(Path(data.get("dir") or "/nowhere"), data.get("speakers") or ())
    return _of_data(place, ())


def leak_remarks(scored: Mapping[str, Path | str], speakers: Collection[str]) -> list[str]:
    """Returns what has to be said of figures on some speakers: who had learnt them, and of whom nobody knows that.

    Args:
      scored: Networks by what the table calls them, or the data that they were trained on.
      speakers: Whose clips are scored.
    """
    remarks = []
    for name, path in scored.items():
        learnt = learnt_speakers(path)
        if learnt is None:
            remarks.append(f"nobody knows whom {name} ({path}) was trained on: it may be those scored here")
            continue
        trained = learnt["train"] & set(speakers)
        selected = learnt["validation"] & set(speakers) - trained
        reported = learnt["train"] & {name for names in TEST_SPEAKERS.values() for name in names} - trained
        for found, how in (
            (trained, "was trained on {}, whose clips are scored here"),
            (selected, "was selected by {}, whose clips are scored here"),
            (reported, "was trained on {}, whom the papers report on"),
        ):
            if found:
                remarks.append(f"{name} ({path}) {how.format(', '.join(sorted(found)))}")
    return remarks


def scored_on(split: str, speakers: Collection[str], scored: Mapping[str, Path | str]) -> str:
    """Returns whose clips figures are of, with all `leak_remarks`, as sentences."""
    told = f"Split {split}, speaker{'s' * (len(set(speakers)) > 1)} {', '.join(sorted(set(speakers)))}."
    return " ".join([told, *(f"NOTE: {remark}." for remark in leak_remarks(scored, speakers))])


def _of_data(folder: Path, chosen: Collection[str]) -> dict[str, set[str]] | None:
    """Speakers of a data set by split, or those of them who were chosen."""
    content = _read(folder / LIST_NAME) or _read(folder / MANIFEST_NAME)
    if content is None:
        return None
    try:
        who = [(clip["split"], clip["speaker"]) for clip in content["clips"].values()]
    except (AttributeError, KeyError, TypeError):
        return None
    return {
        split: {speaker for found, speaker in who if found == split and (not chosen or speaker in chosen)}
        for split in ("train", "validation")
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


# Which sequences a renderer is trained on, and which are kept to judge it by.

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
