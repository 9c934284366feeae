"""Aligned frame pairs: the entries of all alignment paths of a split, one after the other.

Entries of one clip pair stay together and in order, so that a window of consecutive pairs is a slice between two
`pair_starts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Int64

from asccl_jax.data.dataset import read_pairs
from asccl_jax.data.frames import FrameStore
from asccl_jax.data.manifest import FrameIndex
from asccl_jax.data.schema import ClipPairRecord
from asccl_jax.errors import InputError
from asccl_jax.types import PairBatch

__all__ = ["FramePairs", "within_holds"]

_OTHER_TIME = 10
"""Frames between two moments of one sentence that count as other speech, a third of a second at 30 frames/s."""


class FramePairs:
    """Neutral and emotional frames of the same moment of speech; a random access source of Grain.

    Args:
      directory: Data set.
      split: Its split.
      pairing: "aligned", or "mispaired", the control: the key frame is a random one of the same speaker in another
        sentence and any emotion but neutral, the same at each visit. Where a speaker has one sentence only, it is a
        moment at least ten frames from both frames of the aligned pair.
      max_hold: Most consecutive entries of a path that may show one frame of either clip; the middle ones are kept,
        for the moment that a held frame truly shows lies there. None keeps all.
      seed: Seed of the mispaired key frames.

    Attributes:
      frames: The frames.
      clip_pairs: The aligned clip pairs.
      pair_starts: Index of each clip pair's first entry, and the number of entries.
      query_records: Record number of each entry's query frame.
      key_records: Record number of each entry's key frame.

    Raises:
      InputError: A damaged or missing data set, no pairs, or no frame to mispair with.
    """

    def __init__(
        self,
        directory: Path | str,
        split: str,
        *,
        pairing: Literal["aligned", "mispaired"] = "aligned",
        max_hold: int | None = 3,
        seed: int = 0,
    ) -> None:
        if pairing not in ("aligned", "mispaired"):
            raise InputError(f"pairing={pairing!r}: expected 'aligned' or 'mispaired'")
        if max_hold is not None and max_hold < 1:
            raise InputError(f"max_hold={max_hold}: expected None or at least 1")
        self.frames = FrameStore(directory, split)
        self.clip_pairs = read_pairs(directory, split)
        paths = [_kept_path(pair, self.frames.index, max_hold) for pair in self.clip_pairs]
        self.pair_starts = np.cumsum([0, *(len(query) for query, _ in paths)])
        if not len(self):
            found = f"{len(self.clip_pairs)} aligned clip pairs, none with frames" if paths else "no aligned clip pairs"
            raise InputError(
                f"split {split!r} of {directory} has {found}: it needs a neutral and an emotional clip of one "
                "sentence by one speaker; see the preparation's report"
            )
        self.query_records = np.concatenate([query for query, _ in paths])
        self.key_records = np.concatenate([key for _, key in paths])
        if pairing == "mispaired":
            self.key_records = self._mispaired_keys(seed)

    def __len__(self) -> int:
        return int(self.pair_starts[-1])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one pair: uint8 `query_image` and `key_image` (h w 3), and `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        query, key = self.frames.decode([int(self.query_records[index]), int(self.key_records[index])])
        return {"query_image": query, "key_image": key, "index": np.asarray(index, np.int32)}

    def batch(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> PairBatch:
        """Returns the pairs of some indices as a batch of NumPy arrays."""
        rows = np.asarray(indices, np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"pairs {rows.min()} to {rows.max()} of {len(self)}")
        return PairBatch(
            query_image=self.frames.decode(self.query_records[rows].tolist()),
            key_image=self.frames.decode(self.key_records[rows].tolist()),
            index=rows.astype(np.int32),
        )

    def __repr__(self) -> str:
        return f"FramePairs({len(self)} frame pairs of {len(self.clip_pairs)} clip pairs, {self.frames.image_size} px)"

    def _mispaired_keys(self, seed: int) -> Int64[np.ndarray, " n"]:
        # One draw an entry, in their order: the key frame of an entry depends on nothing but seed and index.
        draws = np.random.default_rng(seed).random(len(self))
        keys = np.empty_like(self.key_records)
        candidates: dict[tuple[str, str], np.ndarray] = {}
        for number, pair in enumerate(self.clip_pairs):
            rows = slice(*self.pair_starts[number : number + 2])
            spoken = (pair.speaker, pair.sentence)
            if spoken not in candidates:
                candidates[spoken] = self._other_speech(*spoken)
            if candidates[spoken].size:
                keys[rows] = candidates[spoken][(draws[rows] * candidates[spoken].size).astype(np.int64)]
            else:
                keys[rows] = self._other_moments(pair, rows, draws[rows])
        return keys

    def _other_speech(self, speaker: str, sentence: str) -> Int64[np.ndarray, " n"]:
        index = self.frames.index
        records = [
            index.all_records(name)
            for name, clip in sorted(index.clips.items())
            if clip.speaker == speaker and clip.sentence != sentence and clip.emotion != "neutral"
        ]
        return np.concatenate(records) if records else np.zeros(0, np.int64)

    def _other_moments(self, pair: ClipPairRecord, rows: slice, draws: np.ndarray) -> Int64[np.ndarray, " n"]:
        """Key records for a speaker of one sentence: another time in any clip that is not neutral."""
        index = self.frames.index
        clips = [
            name
            for name, clip in sorted(index.clips.items())
            if clip.speaker == pair.speaker and clip.emotion != "neutral"
        ]
        records = np.concatenate([index.all_records(name) for name in clips])
        positions = np.concatenate([index.positions(name) for name in clips])
        moments = [
            index.positions(clip)[aligned[rows] - index.all_records(clip)[0]]
            for clip, aligned in ((pair.query_clip, self.query_records), (pair.key_clip, self.key_records))
        ]
        keys = []
        for query, key, draw in zip(*moments, draws, strict=True):
            far = records[(np.abs(positions - query) >= _OTHER_TIME) & (np.abs(positions - key) >= _OTHER_TIME)]
            if not far.size:
                raise InputError(
                    f"speaker {pair.speaker!r} says one sentence, and no frame is {_OTHER_TIME} frames away from frame "
                    f"{query} of {pair.query_clip!r}: pairing='mispaired' needs a second sentence or longer clips"
                )
            keys.append(far[int(draw * far.size)])
        return np.asarray(keys, np.int64)


def within_holds(frames: Int64[np.ndarray, " n"], max_hold: int) -> Bool[np.ndarray, " n"]:
    """Returns which entries of one side of a path are among the middle `max_hold` of their run of equal frames.

    >>> within_holds(np.array([0, 1, 1, 1, 1, 1, 2, 2]), 3).astype(int).tolist()
    [1, 0, 1, 1, 1, 0, 1, 1]
    """
    starts = np.flatnonzero(np.diff(frames, prepend=np.nan) != 0)
    lengths = np.diff(starts, append=len(frames))
    place = np.arange(len(frames)) - np.repeat(starts, lengths)
    skipped = np.repeat(np.maximum(lengths - max_hold, 0) // 2, lengths)
    return (place >= skipped) & (place < skipped + max_hold)


def _kept_path(pair: ClipPairRecord, index: FrameIndex, max_hold: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Record numbers of a path's entries of which both frames were kept, holds limited."""
    query = index.records(pair.query_clip, pair.query_frame)
    key = index.records(pair.key_clip, pair.key_frame)
    kept = (query >= 0) & (key >= 0)
    query, key = query[kept], key[kept]
    if max_hold is not None:
        short = within_holds(query, max_hold) & within_holds(key, max_hold)
        query, key = query[short], key[short]
    return query, key
