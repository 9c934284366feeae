"""Frame comparisons for evaluation: the controlled ones of a data set, or ones derived from its aligned clip pairs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.data.dataset import read_comparisons
from asccl_jax.data.manifest import Manifest, evenly_spaced, read_manifest
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.data.test_speakers import reported_split
from asccl_jax.evals.statistics import Units, choose_units

__all__ = [
    "CONTROLLED_SPLIT",
    "Comparisons",
    "default_split",
    "derive_comparisons",
    "load_comparisons",
]

CONTROLLED_SPLIT = "comparisons"
"""Split under which synthetic data sets keep their controlled comparisons."""

DERIVED_GROUPS = 200
"""Aligned frame pairs that derived comparisons start from, unless told otherwise: neighbouring ones say the same."""

MINIMUM_DISTANCE_FRAMES = 8
"""A derived mismatch lies at least this far from the aligned frame: a quarter second at 30 frames a second."""

_MISMATCH_RANKS = {"other_speech": 0.75, "small_speech_change": 0.25}
"""Rank, among the frames of the key clip that are far enough away, of the lip shape taken as the mismatch."""


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """Frame pairs to score, grouped by query.

    Attributes:
      records: One entry a pair of frames; those of one query share `group`, each with another condition.
      controlled: True where every factor but one is known to be equal (synthetic data); False where the conditions
        were derived from aligned clip pairs.
      split: Split of the data set that holds the frames.
    """

    records: tuple[ComparisonRecord, ...]
    controlled: bool
    split: str

    def groups(self) -> Int[np.ndarray, " n"]:
        """Returns the position of each record's group in the order of first appearance."""
        order: dict[int, int] = {}
        return np.array([order.setdefault(record.group, len(order)) for record in self.records], np.int64)

    @functools.cached_property
    def lookup(self) -> dict[str, dict[int, int]]:
        """Condition -> group position -> position of the record."""
        table: dict[str, dict[int, int]] = {}
        for position, (group, record) in enumerate(zip(self.groups(), self.records, strict=True)):
            table.setdefault(record.condition, {})[int(group)] = position
        return table

    def units(self, positions: Int[np.ndarray, " m"]) -> Units:
        """Returns what an interval of records at these positions resamples.

        Frames of one clip are no independent samples, nor are pairs that share their query clip: speakers count, or
        where there are few of them query clips, or where there are few of those, too, pairs of clips.
        """
        records = [self.records[position] for position in positions]
        return choose_units(
            ("speaker", [record.speaker for record in records]),
            ("query clip", [record.query_clip for record in records]),
            ("clip pair", [record.key_clip for record in records]),
        )


def default_split(manifest: Manifest) -> str:
    """Returns the split to report on: the controlled comparisons where there are any, else `reported_split`."""
    paired = [name for name, split in manifest.splits.items() if split.records("pairs")]
    return CONTROLLED_SPLIT if CONTROLLED_SPLIT in manifest.splits else reported_split(paired)


def load_comparisons(directory: Path, *, split: str | None = None, limit: int | None = None) -> Comparisons:
    """Returns the comparisons of a split, derived from its aligned pairs where it holds none.

    Args:
      directory: Data set.
      split: Split to use; None takes `default_split`.
      limit: Most groups to keep, evenly spaced over all of them; None keeps all controlled ones, and derives 200.

    Raises:
      InputError: Unknown split, or one that holds neither comparisons nor aligned pairs.
    """
    manifest = read_manifest(directory)
    chosen = split if split is not None else default_split(manifest)
    if not manifest.split(chosen).records("comparisons"):
        return derive_comparisons(directory, split=chosen, limit=DERIVED_GROUPS if limit is None else limit)
    records = read_comparisons(directory, chosen)
    kept = set(evenly_spaced(list(dict.fromkeys(record.group for record in records)), limit))
    return Comparisons(tuple(record for record in records if record.group in kept), True, chosen)


def derive_comparisons(directory: Path, *, split: str, limit: int | None = None) -> Comparisons:
    """Returns comparisons made from aligned clip pairs, for recordings without controlled ones.

    `matched` is an aligned pair of frames. The mismatches keep its query and take another frame of the same key clip,
    at least `MINIMUM_DISTANCE_FRAMES` away: of those frames, ordered by how far their lip shape is from the aligned
    one's, the frame three quarters up the order is `other_speech` and the one a quarter up is `small_speech_change`.
    (Not the farthest: that would be the widest yawn or the worst landmarks of the clip.) A clip too short for either
    has `matched` alone. `speech_distance` is the distance of the lip shapes as a fraction of that between the eyes.
    Emotion, pose and lighting are as recorded.

    Args:
      directory: Data set.
      split: Split whose pairs are used.
      limit: Most aligned frame pairs, evenly spaced over all of them; None takes all.

    Raises:
      InputError: Unknown split, or no aligned pairs in it.
    """
    pairs = FramePairs(directory, split)
    lips = _LipShapes(pairs)
    records: list[ComparisonRecord] = []
    for group, entry in enumerate(evenly_spaced(range(len(pairs)), limit)):
        records += _compare_aligned_frame(pairs, entry, group=group, lips=lips)
    return Comparisons(tuple(records), False, split)


class _LipShapes:
    """Lip shapes of frames by record number, read once each."""

    def __init__(self, pairs: FramePairs) -> None:
        self._frames = pairs.frames
        self._shapes: dict[int, Float[np.ndarray, "20 2"]] = {}

    def distances(self, record: int, others: Sequence[int]) -> Float[np.ndarray, " n"]:
        """Root-mean-square distances of lip points, as a fraction of the distance between the eyes."""
        shape = self._shape(record)
        return np.array([np.sqrt(np.mean(np.sum((self._shape(o) - shape) ** 2, axis=1))) for o in others])

    def _shape(self, record: int) -> Float[np.ndarray, "20 2"]:
        if record not in self._shapes:
            self._shapes[record] = lip_shape(self._frames[record].landmarks)
        return self._shapes[record]


def lip_shape(landmarks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "20 2"]:
    """Returns the 20 lip points free of position, size and in-plane rotation: between the eyes is one unit long."""
    left, right = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    across = right - left
    length = max(float(np.hypot(*across)), 1e-6)
    down = np.array([-across[1], across[0]])
    lips = landmarks[48:68] - landmarks[48:68].mean(axis=0)
    return np.stack([lips @ across, lips @ down], axis=1) / length**2


def _compare_aligned_frame(pairs: FramePairs, entry: int, *, group: int, lips: _LipShapes) -> list[ComparisonRecord]:
    number = int(np.searchsorted(pairs.pair_starts, entry, side="right")) - 1
    pair, index = pairs.clip_pairs[number], pairs.frames.index
    positions, numbers = index.positions(pair.key_clip), index.all_records(pair.key_clip)
    aligned = int(pairs.key_records[entry] - numbers[0])
    candidates = np.flatnonzero(np.abs(positions - positions[aligned]) >= MINIMUM_DISTANCE_FRAMES)
    distances = lips.distances(int(numbers[aligned]), numbers[candidates].tolist())
    order = np.argsort(distances, kind="stable")
    chosen = {"matched": (int(positions[aligned]), 0.0)}
    for condition, rank in _MISMATCH_RANKS.items() if candidates.size else ():
        place = order[round(rank * (len(order) - 1))]
        chosen[condition] = (int(positions[candidates[place]]), float(distances[place]))
    query = int(pairs.query_records[entry] - index.all_records(pair.query_clip)[0])
    return [
        ComparisonRecord(
            group=group,
            condition=condition,
            query_clip=pair.query_clip,
            query_frame=int(index.positions(pair.query_clip)[query]),
            key_clip=pair.key_clip,
            key_frame=key_frame,
            speaker=pair.speaker,
            emotion=pair.key_emotion,
            speech_distance=distance,
        )
        for condition, (key_frame, distance) in chosen.items()
    ]
