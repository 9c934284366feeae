"""Sequences of consecutive aligned frames, in batches for training and evaluation of a renderer.

A sequence of n frames to generate has n + 2 frames: the first two only give context. n is always a multiple of the
chunk after which weights are updated; training takes sequences chunk by chunk, each with its own two frames of context,
so that however long sequences grow, all its batches have one shape.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterable, Sequence

import grain
import numpy as np
from jaxtyping import Int, Int64, UInt8

from asccl_jax.data.aligned_frames import AlignedClips, AlignedFrame, RenderedClip, eyes_at
from asccl_jax.data.loader import process_rows, read_options
from asccl_jax.errors import InputError
from asccl_jax.head.eyes import EYE_NOISE_DRAWS, noisy_eye_points
from asccl_jax.types import SequenceBatch

__all__ = [
    "CONTEXT",
    "NOISES",
    "STREAMS",
    "ConditioningNoise",
    "Cut",
    "Lengths",
    "RenderSequences",
    "SequenceItem",
    "Stage",
    "moved_and_scaled",
    "sequence_batches",
    "sequence_items",
    "training_stages",
]

# How training disturbs what a renderer draws from, so that it forgives what it meets later.
#
# The published renderer moves and scales each conditioning picture by about a hundredth, anew for every frame and every
# stream, and moves the pupils. Within a sequence that shakes what should move smoothly: here a sequence is disturbed as
# one, unless asked otherwise.

NOISES = ("none", "sequence", "frame")
"""Not at all, one draw for a sequence, or one for each frame and stream as published."""

STREAMS = ("nmfc_image", "eyes_image", "shape_image")

_SHIFT, _SCALE = 0.01, 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class _Draw:
    """One disturbance: shift in pixels (x, y), scale, and draws of `noisy_eye_points`."""

    shift: tuple[int, int]
    scale: float
    eyes: np.ndarray


class ConditioningNoise:
    """Disturbs the conditioning of one sequence after another.

    Args:
      kind: One of `NOISES`.
      rng: Of the sequence.
      size: Side of the pictures.
    """

    def __init__(self, kind: str, rng: np.random.Generator, size: int) -> None:
        self._kind, self._rng, self._size = kind, rng, size
        self._first = self._draw()

    def __call__(self, frame: AlignedFrame) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """Returns a frame's conditioning pictures by name, disturbed."""
        if self._kind == "none":
            return {name: getattr(frame, name) for name in STREAMS}
        draws = [self._draw() if self._kind == "frame" else self._first for _ in STREAMS]
        eyes = noisy_eye_points(frame.eye_points, draws[STREAMS.index("eyes_image")].eyes)
        pictures = {name: getattr(frame, name) for name in STREAMS}
        pictures["eyes_image"] = eyes_at(eyes, frame.stored_size, self._size)
        return {
            name: moved_and_scaled(pictures[name], draw.shift, draw.scale)
            for name, draw in zip(STREAMS, draws, strict=True)
        }

    def _draw(self) -> _Draw:
        x, y = np.rint(self._rng.uniform(-_SHIFT, _SHIFT, 2) * self._size).astype(int).tolist()
        scale = float(self._rng.uniform(1 - _SCALE, 1 + _SCALE))
        return _Draw((x, y), scale, self._rng.standard_normal(EYE_NOISE_DRAWS))


def moved_and_scaled(
    image: UInt8[np.ndarray, "h w c"], shift: tuple[int, int], scale: float
) -> UInt8[np.ndarray, "h w c"]:
    """Returns a picture scaled about its middle and moved, the nearest pixel each, black where there is none.

    Args:
      image: The picture.
      shift: To the right and down, in pixels.
      scale: Above 1 enlarges.
    """
    result = image
    for axis, move in ((0, shift[1]), (1, shift[0])):
        length = image.shape[axis]
        places = np.floor((np.arange(length) + 0.5 - length / 2 - move) / scale + length / 2).astype(int)
        outside = (places < 0) | (places >= length)
        result = np.take(result, np.clip(places, 0, length - 1), axis=axis)
        result[(slice(None),) * axis + (outside,)] = 0
    return result


CONTEXT = 2
"""Frames of a sequence before the first one that is generated."""


@dataclasses.dataclass(frozen=True)
class SequenceItem:
    """Consecutive frames of a clip, of which sequences are cut.

    Attributes:
      clip: Id of the clip.
      first: Position of the first frame.
      frames: How many.
    """

    clip: str
    first: int
    frames: int

    def fits(self, length: int) -> bool:
        """Returns whether a sequence that generates so many frames can be cut."""
        return self.frames >= length + CONTEXT


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How many frames of a sequence are generated, growing as published.

    Attributes:
      start: In the first epochs.
      most: In the last; reached by doubling.
      epochs: After which it doubles.
    """

    start: int = 12
    most: int = 48
    epochs: int = 5

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        if not 1 <= self.start <= self.most or self.epochs < 1:
            raise InputError(f"{self}: expected 1 <= start <= most, and at least one epoch")

    def values(self) -> list[int]:
        """Returns the lengths in order.

        >>> Lengths(12, 48).values()
        [12, 24, 48]
        """
        doubled = itertools.takewhile(lambda length: length < self.most, (self.start << k for k in itertools.count()))
        return [*doubled, self.most]


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """Where a sequence is cut out, and how its conditioning is disturbed.

    Attributes:
      item: Number of the item.
      start: Frames of the item before the sequence.
      fresh: Whether it begins as a video does: its first two frames repeat the third.
      noise: The disturbance.
    """

    item: int
    start: int
    fresh: bool
    noise: ConditioningNoise

    def positions(self, item: SequenceItem, length: int) -> Int64[np.ndarray, " t"]:
        """Returns the positions in the clip of the frames of a sequence that generates so many."""
        offsets = np.arange(length + CONTEXT)
        if self.fresh:
            offsets = np.maximum(offsets - CONTEXT, 0)
        return item.first + self.start + offsets


class RenderSequences:
    """The items of some clips; as a source of examples (`loader.evaluation_batches`), the first frames of each.

    A run of consecutive frames is cut into even items of about `frames_per_sequence`, so that a run of exactly that
    length stays whole.

    Args:
      clips: Where the frames come from.
      chosen: Clips to take, or parts of them: only their runs count; None takes all.
      frames_per_sequence: Frames of an item, about.
      length: Frames generated of an example; items too short for it are left out altogether.
      chunk: Frames of which every length is a multiple.

    Attributes:
      clips: See above.
      items: What sequences are cut of.
      length: See above.
      chunk: See above.
      short_runs: Runs of frames left out as too short.

    Raises:
      InputError: No item at all, or sizes that make no sense.
    """

    def __init__(
        self,
        clips: AlignedClips,
        chosen: Iterable[RenderedClip] | None = None,
        *,
        frames_per_sequence: int = 50,
        length: int = 12,
        chunk: int = 4,
    ) -> None:
        if chunk < 1 or length < chunk or length % chunk:
            raise InputError(f"length {length}: expected a multiple of the chunk of {chunk} frames")
        if frames_per_sequence < length + CONTEXT:
            raise InputError(
                f"{frames_per_sequence} frames a sequence: expected at least {length + CONTEXT}, for {length} generated"
                f" and {CONTEXT} before them"
            )
        entries = sorted(clips.clips.values() if chosen is None else chosen, key=lambda entry: entry.clip)
        items = [item for entry in entries for item in sequence_items(entry, frames_per_sequence)]
        self.clips, self.length, self.chunk = clips, length, chunk
        self.items = [item for item in items if item.fits(length)]
        self.short_runs = len(items) - len(self.items)
        if not self.items:
            longest = max((item.frames for item in items), default=0)
            raise InputError(
                f"no sequence of {length + CONTEXT} consecutive frames in {len(entries)} clips: the longest has"
                f" {longest}; set a shorter length, or give longer clips"
            )

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        frames = sum(item.frames for item in self.items)
        return f"RenderSequences({len(self)} items, {frames:,} frames, {self.short_runs} runs too short)"

    def speakers(self) -> set[str]:
        """Returns whose clips the items are of."""
        return {self.clips.entry(item.clip).speaker for item in self.items}

    def batch(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> SequenceBatch:
        """Returns the first frames of some items, each as a video begins, not disturbed."""
        chosen = [int(index) for index in indices]
        if chosen and not 0 <= min(chosen) <= max(chosen) < len(self):
            raise IndexError(f"items {min(chosen)} to {max(chosen)} of {len(self)}")
        still = ConditioningNoise("none", np.random.default_rng(0), self.clips.image_size)
        cuts = [Cut(index, 0, fresh=True, noise=still) for index in chosen]
        return self.cut(cuts, self.length)

    def cut(self, cuts: Sequence[Cut], length: int, *, chunk: int | None = None) -> SequenceBatch:
        """Returns sequences that generate so many frames, or one chunk of each."""
        size = self.clips.image_size
        shown = slice(None) if chunk is None else slice(chunk * self.chunk, (chunk + 1) * self.chunk + CONTEXT)
        shape = (len(cuts), len(range(length + CONTEXT)[shown]), size, size)
        pictures = {name: np.empty((*shape, 3), np.uint8) for name in ("image", *STREAMS)}
        masks, centres = np.empty((*shape, 1), np.uint8), np.empty((*shape[:2], 2), np.int32)
        boxes = np.empty((*shape[:2], 4), np.float32)
        for row, cut in enumerate(cuts):
            item = self.items[cut.item]
            for place, position in enumerate(cut.positions(item, length)[shown].tolist()):
                frame = self.clips.read(item.clip, position)
                for name, picture in {"image": frame.image, **cut.noise(frame)}.items():
                    pictures[name][row, place] = picture
                masks[row, place], centres[row, place] = frame.mask, frame.mouth_centre
                boxes[row, place] = frame.face_box
        return SequenceBatch(
            **pictures,
            mask=masks,
            mouth_centre=centres,
            face_box=boxes,
            begins=np.full(len(cuts), not chunk, bool),
            fresh_start=np.array([cut.fresh for cut in cuts], bool),
            index=np.array([cut.item for cut in cuts], np.int32),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """A part of training with sequences of one length.

    Attributes:
      length: Frames generated of a sequence.
      items: Numbers of the items long enough for it; an epoch goes through all of these once.
      chunks: Batches that a sequence takes, one for each of its chunks.
      batches: How many in all; None for the last stage, which does not end.
      first: Number of the first batch.
    """

    length: int
    items: Int64[np.ndarray, " m"]
    chunks: int
    batches: int | None
    first: int


def training_stages(source: RenderSequences, lengths: Lengths, *, batch_size: int) -> list[Stage]:
    """Returns the stages of a training, in order.

    A length is lowered to a multiple of the chunk, and to what the longest item allows.

    Args:
      source: The items.
      lengths: How sequences grow.
      batch_size: Sequences of a global batch.
    """
    allowed = (max(item.frames for item in source.items) - CONTEXT) // source.chunk * source.chunk
    wanted = [max(length // source.chunk, 1) * source.chunk for length in lengths.values()]
    capped = list(dict.fromkeys(min(length, allowed) for length in wanted))
    stages: list[Stage] = []
    first = 0
    for length in capped:
        items = np.flatnonzero([item.fits(length) for item in source.items])
        chunks = length // source.chunk
        batches = None if length == capped[-1] else chunks * max(lengths.epochs * len(items) // batch_size, 1)
        stages.append(Stage(length, items, chunks, batches, first))
        first += batches or 0
    return stages


def _report(source: RenderSequences, stages: Sequence[Stage], lengths: Lengths) -> None:
    """Logs which items are too short for a stage, and whether all are for the greatest length."""
    log, longest = logging.getLogger(__name__), stages[-1].length
    for stage in stages:
        if left_out := len(source) - len(stage.items):
            log.warning(
                "sequences of %d frames: %d of %d items are too short for them and take no part",
                *(stage.length, left_out, len(source)),
            )
    if longest + source.chunk <= lengths.most:
        log.warning("sequences grow to %d frames only, not %d: no item is longer", longest, lengths.most)


def sequence_batches(
    source: RenderSequences,
    *,
    batch_size: int,
    seed: int,
    lengths: Lengths | None = None,
    noise: str = "sequence",
    fresh_start_share: float = 0.25,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    prefetch: int = 2,
) -> grain.DatasetIterator[SequenceBatch]:
    """Returns this process's part of endless shuffled batches, checkpointable as `loader.training_batches` is.

    An epoch is a permutation of the items of a stage, each cut at a random place. Batch k is the same whatever came
    before it and however many processes share it. Items too short for a stage are named in the log.

    Args:
      source: The items.
      batch_size: Sequences of a global batch.
      seed: Of order, places and noise.
      lengths: How sequences grow; as published by default.
      noise: How the conditioning is disturbed, one of `conditioning_noise.NOISES`.
      fresh_start_share: Share of sequences that begin as a video does.
      process_index: Which part of each batch.
      process_count: Processes that share a batch.
      threads: Threads that make batches; 0 does so in `next`.
      prefetch: Batches held ready.

    Raises:
      InputError: Sizes that do not fit.
    """
    if noise not in NOISES:
        raise InputError(f"noise {noise!r}: expected one of {', '.join(NOISES)}")
    if not 0 <= fresh_start_share <= 1:
        raise InputError(f"fresh_start_share={fresh_start_share}: expected 0 to 1")
    rows = process_rows(batch_size, process_index, process_count)
    lengths = lengths or Lengths()
    stages = training_stages(source, lengths, batch_size=batch_size)
    _report(source, stages, lengths)
    order = functools.lru_cache(maxsize=8)(lambda stage, epoch: _order(seed, stage, epoch, len(stages[stage].items)))

    def make(number: int, _: int) -> SequenceBatch:
        place = max(k for k, stage in enumerate(stages) if stage.first <= number)
        stage = stages[place]
        turn, chunk = divmod(number - stage.first, stage.chunks)
        cuts = []
        for row in range(rows.start, rows.stop):
            epoch, position = divmod(turn * batch_size + row, len(stage.items))
            item = int(stage.items[order(place, epoch)[position]])
            rng = np.random.default_rng([0x5E9, seed, place, turn, row])
            fresh = bool(rng.random() < fresh_start_share)
            needed = stage.length + (0 if fresh else CONTEXT)
            start = int(rng.integers(source.items[item].frames - needed + 1))
            # What disturbs a sequence as one is drawn alike for each of its chunks.
            drawn_for = chunk if noise == "frame" else 0
            disturbing = np.random.default_rng([0x5EA, seed, place, turn, row, drawn_for])
            cuts.append(Cut(item, start, fresh, ConditioningNoise(noise, disturbing, source.clips.image_size)))
        return source.cut(cuts, stage.length, chunk=chunk)

    endless = grain.MapDataset.range(1).repeat().map_with_index(make)
    return iter(endless.to_iter_dataset(read_options(threads, prefetch)))


def _order(seed: int, stage: int, epoch: int, length: int) -> Int64[np.ndarray, " m"]:
    return np.random.default_rng([0x5E8, seed, stage, epoch]).permutation(length)


def sequence_items(clip: RenderedClip, about: int) -> list[SequenceItem]:
    """Returns what sequences of a clip are cut of: each run in even pieces of about so many frames."""
    return [SequenceItem(clip.clip, first, count) for run in clip.runs for first, count in _pieces(run, about)]


def _pieces(run: tuple[int, int], about: int) -> list[tuple[int, int]]:
    """First frame and count of even pieces of a run."""
    first, count = run[0], run[1] - run[0] + 1
    pieces = max(1, round(count / about))
    bounds = [first + count * k // pieces for k in range(pieces + 1)]
    return [(low, high - low) for low, high in itertools.pairwise(bounds)]
