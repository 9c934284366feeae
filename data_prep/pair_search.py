"""From prepared clips to aligned pairs: sentences settled, clips matched, paths found or taken from a list."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

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
    unpaired_spellings,
    within_splits,
)
from data_prep.settings import Preparation

__all__ = ["FoundPairs", "find_pairs", "standing_out"]

DOUBTFUL_COST = 0.7
"""Mean cost above which a pair is pointed out: unlike sentences of real speakers were measured at 0.70 to 0.86."""

_COSTLY_TIMES = 1.5
"""How much more than the others a pair costs that stands out. Median and range of equal sentences, unlike ones: made
voices 0.05 (0.04 to 0.07), 0.60 (0.40 to 0.84); synthetic clips 0.09 (0.06 to 0.11), 0.57 (0.53 to 0.60); of real ones
two equal sentences, each of two speakers, are at 0.59 and 0.66, unlike ones at 0.70 to 0.85."""

_NEVER_COSTLY = 0.3
"""Mean cost up to which a pair never stands out, however little the others cost."""


@dataclasses.dataclass(frozen=True)
class FoundPairs:
    """What is paired with what.

    Attributes:
      clips: All usable clips, their sentences settled.
      pairs: The aligned pairs.
      problems: Pairs that cannot be aligned, or are doubtful.
      costly: How many pairs were left out because their cost stands out.
    """

    clips: list[Clip]
    pairs: list[ClipPair]
    problems: list[Problem]
    costly: int = 0


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
    costly = standing_out([pair.cost for pair in pairs])
    outcome: Literal["kept", "dropped"] = "kept" if settings.keep_costly else "dropped"
    problems += [
        Problem(
            pair.name,
            f"cost {pair.cost:.2f}, where pairs of this data set cost {usual:.2f}: another sentence under one number?",
            outcome,
        )
        for pair, usual in zip(pairs, costly, strict=True)
        if usual is not None
    ]
    problems += _doubts(pairs, costly)
    problems += unpaired_spellings(clip for clip in settled if statuses[clip.clip_id].has_sound)
    if settings.keep_costly:
        return FoundPairs(settled, pairs, problems)
    kept = [pair for pair, usual in zip(pairs, costly, strict=True) if usual is None]
    return FoundPairs(settled, kept, problems, len(pairs) - len(kept))


def standing_out(costs: Sequence[float]) -> list[float | None]:
    """Returns, for each pair that costs much more than the others do, the median of those; None for all that do not.

    >>> standing_out([0.1, 0.6, 0.12]), standing_out([0.6, 0.7, 0.65]), standing_out([0.8])
    ([None, 0.11, None], [None, None, None], [None])
    """
    found: list[float | None] = []
    for place, cost in enumerate(costs):
        others = [*costs[:place], *costs[place + 1 :]]
        usual = round(statistics.median(others), 4) if others else cost
        found.append(usual if cost > max(_NEVER_COSTLY, _COSTLY_TIMES * usual) else None)
    return found


def _judge(
    candidate: ClipPair, result: Alignment | str | None, max_cost: float | None
) -> tuple[ClipPair | None, Problem | None]:
    """What becomes of a pair: itself with its path, or a problem."""
    if not isinstance(result, Alignment):
        return None, Problem(candidate.name, result or "never finished")
    if max_cost is not None and result.cost > max_cost:
        return None, Problem(candidate.name, f"cost {result.cost:.2f} above the limit {max_cost:g}")
    return dataclasses.replace(candidate, query_frame=result.query, key_frame=result.key, cost=result.cost), None


def _doubts(pairs: Sequence[ClipPair], costly: Sequence[float | None]) -> list[Problem]:
    """Pairs that do not stand out, but cost what unlike sentences do."""
    return [
        Problem(pair.name, f"cost {pair.cost:.2f}: do both say the same words?", "kept")
        for pair, usual in zip(pairs, costly, strict=True)
        if usual is None and pair.cost > DOUBTFUL_COST
    ]
