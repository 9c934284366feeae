"""From prepared clips to aligned pairs: sentences settled, clips matched, paths found or taken from a list."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from data_prep.alignment import Alignment, UnalignableError
from data_prep.clip_records import ClipStatus, WorkFolder
from data_prep.clips import Clip, Problem
from data_prep.pair_alignment import PairTask, align_clips
from data_prep.pairing import (
    ClipPair,
    adopt_sentences,
    import_pairs,
    match_sentences,
    name_disgusted_sentences,
    within_splits,
)
from data_prep.settings import Preparation

__all__ = ["FoundPairs", "find_pairs"]

DOUBTFUL_COST = 0.7
"""Mean cost above which a pair is pointed out: unlike sentences of real speakers were measured at 0.70 to 0.86."""


@dataclasses.dataclass(frozen=True)
class FoundPairs:
    """What is paired with what.

    Attributes:
      clips: All usable clips, their sentences settled.
      pairs: The aligned pairs.
      problems: Pairs that cannot be aligned, or are doubtful.
    """

    clips: list[Clip]
    pairs: list[ClipPair]
    problems: list[Problem]


def find_pairs(
    clips: Sequence[Clip],
    statuses: Mapping[str, ClipStatus],
    splits: Mapping[str, str],
    *,
    settings: Preparation,
    work: WorkFolder,
    align: Callable[[Sequence[PairTask]], None],
) -> FoundPairs:
    """Returns the aligned pairs of usable clips.

    Args:
      clips: Usable clips.
      statuses: Status of each by its id.
      splits: Split of each by its id.
      settings: How to pair and align.
      work: Where the prepared clips lie.
      align: Runs `align_pair` over the tasks that have no result.
    """
    if settings.pairs_from is not None:
        pairs, unnamed = import_pairs(settings.pairs_from, clips)
        settled, pairs, conflicting = adopt_sentences(clips, pairs)
        pairs, crossing = within_splits(pairs, splits)
        return FoundPairs(settled, pairs, unnamed + conflicting + crossing)
    settled = list(clips)
    renaming: list[Problem] = []
    if settings.layout == "mead" and settings.transcripts is None:

        def cost(query: Clip, key: Clip) -> float | None:
            try:
                return align_clips(work, query, key, settings.alignment).cost
            except UnalignableError:
                return None

        settled, renaming = name_disgusted_sentences(clips, cost)
    candidates, crossing = within_splits(
        match_sentences(clip for clip in settled if statuses[clip.clip_id].has_sound), splits
    )
    tasks = [
        PairTask(
            work=work,
            query=pair.query,
            key=pair.key,
            inputs=(statuses[pair.query.clip_id].key, statuses[pair.key.clip_id].key),
            settings=settings.alignment,
        )
        for pair in candidates
    ]
    align(tasks)
    pairs, problems = [], renaming + crossing
    for candidate, task in zip(candidates, tasks, strict=True):
        pair, problem = _judge(candidate, task.result(), settings.max_cost)
        pairs += [pair] if pair is not None else []
        problems += [problem] if problem is not None else []
    return FoundPairs(settled, pairs, problems)


def _judge(
    candidate: ClipPair, result: Alignment | str | None, max_cost: float | None
) -> tuple[ClipPair | None, Problem | None]:
    """What becomes of a pair: itself with its path, or a problem, or both."""
    if not isinstance(result, Alignment):
        return None, Problem(candidate.name, result or "never finished")
    if max_cost is not None and result.cost > max_cost:
        return None, Problem(candidate.name, f"cost {result.cost:.2f} above the limit {max_cost:g}")
    pair = dataclasses.replace(candidate, query_frame=result.query, key_frame=result.key, cost=result.cost)
    if result.cost > DOUBTFUL_COST:
        return pair, Problem(candidate.name, f"cost {result.cost:.2f}: do both say the same words?", "kept")
    return pair, None
