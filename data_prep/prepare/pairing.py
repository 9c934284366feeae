"""Which clips are compared: one speaker, one sentence, neutral against each other emotion.

Clips match by sentence, not by number: MEAD's numbers mean other sentences in other emotions. Pairs come from the
sound (`alignment`) or from a list in the layout of the published `aligned_path36.json`.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import statistics
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from asccl_jax.data.schema import ClipPairRecord
from asccl_jax.errors import InputError
from asccl_jax.paths import name_hash
from asccl_jax.work import write_atomically
from data_prep.media.clips import Clip, Problem, emotion_name, name_key
from data_prep.prepare.alignment import Alignment, AlignmentSettings, UnalignableError, align_speech
from data_prep.prepare.clip_records import ClipStatus, WorkFolder
from data_prep.prepare.prepare_settings import Preparation

__all__ = [
    "ClipPair",
    "FoundPairs",
    "PairTask",
    "adopt_sentences",
    "align_clips",
    "align_pair",
    "export_pairs",
    "find_pairs",
    "import_pairs",
    "match_sentences",
    "name_disgusted_sentences",
    "pair_record",
    "standing_out",
    "unpaired_spellings",
    "within_splits",
]

_FIRST, _LAST = ("001", "002", "003"), ("028", "029", "030")


@dataclasses.dataclass(frozen=True, eq=False)
class ClipPair:
    """Two clips to be compared, and their frames once these are known.

    Attributes:
      query: The neutral clip.
      key: The clip in another emotion.
      query_frame: Frames of the query clip along the path, empty before alignment.
      key_frame: Frames of the key clip, likewise.
      cost: Mean cost of the alignment; 0 for a path from a list.
    """

    query: Clip
    key: Clip
    query_frame: Int[np.ndarray, " n"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    key_frame: Int[np.ndarray, " n"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    cost: float = 0.0

    @property
    def name(self) -> str:
        """The two clip ids, as the report writes them."""
        return f"{self.query.clip_id} ~ {self.key.clip_id}"


def match_sentences(clips: Iterable[Clip]) -> list[ClipPair]:
    """Returns every neutral clip with every emotional one of the same speaker and sentence."""
    groups: dict[tuple[str, str], list[Clip]] = collections.defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        groups[clip.speaker, clip.sentence].append(clip)
    return [
        ClipPair(query, key)
        for group in groups.values()
        for query in group
        for key in group
        if query.emotion == "neutral" != key.emotion
    ]


def unpaired_spellings(clips: Iterable[Clip]) -> list[Problem]:
    """Returns the sentences of which one spelling of a speaker has the neutral clip and another one the emotional."""
    groups: dict[tuple[str, str], dict[str, set[bool]]] = collections.defaultdict(dict)
    for clip in clips:
        spelled = unicodedata.normalize("NFC", " ".join(clip.speaker.split())).casefold()
        groups[spelled, clip.sentence].setdefault(clip.speaker, set()).add(clip.emotion == "neutral")
    return [
        Problem(
            f"{neutral}/{sentence} ~ {other}/{sentence}",
            f"{neutral}/{sentence} has no clip with an emotion, {other}/{sentence} no neutral one: one speaker, spelled"
            " in two ways?",
        )
        for (_, sentence), kinds in groups.items()
        for neutral, here in kinds.items()
        for other, there in kinds.items()
        if here == {True} and there == {False}
    ]


def within_splits(pairs: Iterable[ClipPair], splits: Mapping[str, str]) -> tuple[list[ClipPair], list[Problem]]:
    """Returns the pairs whose clips lie in one split; a pair across would leak held-out frames into training."""
    kept, problems = [], []
    for pair in pairs:
        if splits[pair.query.clip_id] == splits[pair.key.clip_id]:
            kept.append(pair)
        else:
            problems.append(Problem(pair.name, "its clips lie in different splits"))
    return kept, problems


def import_pairs(path: Path, clips: Iterable[Clip]) -> tuple[list[ClipPair], list[Problem]]:
    """Returns the aligned pairs of a list: {speaker: {emotion: {"NNN_EEE": [[neutral frame, ...], [frame, ...]]}}}.

    Args:
      path: JSON file; NNN and EEE are names of the neutral and of the emotional clip, frames count from 0.
      clips: Clips there are; pairs of others are named as problems.

    Raises:
      InputError: The file is missing or of another layout.
    """
    try:
        table = json.loads(path.read_text())
        entries = [
            (speaker, emotion, key, *(np.asarray(frames, np.int64) for frames in (query_frames, key_frames)))
            for speaker, emotions in table.items()
            for emotion, paths in emotions.items()
            for key, (query_frames, key_frames) in paths.items()
        ]
    except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise InputError(
            f'cannot read {path} as a list of pairs {{speaker: {{emotion: {{"NNN_EEE": [[...], [...]]}}}}}}: {error}'
        ) from error
    by_name: dict[tuple[str, str], dict[str, Clip]] = collections.defaultdict(dict)
    for clip in clips:
        by_name[name_key(clip.speaker), clip.emotion][clip.name] = clip
    pairs, problems = [], []
    for speaker, emotion, name, query_frame, key_frame in entries:
        subject = f"{path.name}: {speaker}/{emotion}/{name}"
        try:
            who = name_key(speaker)
            query, key = _named_clips(name, by_name[who, "neutral"], by_name[who, emotion_name(emotion)])
            _check_path(query_frame, key_frame)
        except ValueError as error:
            problems.append(Problem(subject, str(error)))
        else:
            pairs.append(ClipPair(query, key, query_frame, key_frame))
    return pairs, problems


def export_pairs(path: Path, pairs: Iterable[ClipPair]) -> None:
    """Writes aligned pairs in the layout that `import_pairs` reads."""
    table: dict[str, dict[str, dict[str, list[list[int]]]]] = {}
    for pair in pairs:
        paths = table.setdefault(pair.query.speaker, {}).setdefault(pair.key.emotion, {})
        paths[f"{pair.query.name}_{pair.key.name}"] = [pair.query_frame.tolist(), pair.key_frame.tolist()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(table, sort_keys=True) + "\n")


def adopt_sentences(
    clips: Sequence[Clip], pairs: Sequence[ClipPair]
) -> tuple[list[Clip], list[ClipPair], list[Problem]]:
    """Returns clips and pairs of a list such that each key clip says what its query clip says.

    A clip of the same speaker and emotion that claimed that sentence by its number alone gets one of its own. A pair
    that would have its key clip say two sentences is a problem.
    """
    adopted: dict[str, str] = {}
    for pair in pairs:
        adopted.setdefault(pair.key.clip_id, pair.query.sentence)
    taken = {(pair.key.speaker, pair.key.emotion, adopted[pair.key.clip_id]) for pair in pairs}
    renamed: dict[str, Clip] = {}
    for clip in clips:
        sentence = adopted.get(clip.clip_id, clip.sentence)
        if clip.clip_id not in adopted and (clip.speaker, clip.emotion, sentence) in taken:
            sentence = f"{clip.emotion}-{clip.name}"
        renamed[clip.clip_id] = dataclasses.replace(clip, sentence=sentence)
    kept, problems = [], []
    for pair in pairs:
        query, key = renamed[pair.query.clip_id], renamed[pair.key.clip_id]
        if query.sentence == key.sentence:
            kept.append(dataclasses.replace(pair, query=query, key=key))
        else:
            problems.append(Problem(pair.name, f"the key clip is already paired as sentence {key.sentence!r}"))
    return list(renamed.values()), kept, problems


def name_disgusted_sentences(
    clips: Sequence[Clip], cost: Callable[[Clip, Clip], float | None]
) -> tuple[list[Clip], list[Problem]]:
    """Returns MEAD's clips with the sentences of each speaker's disgusted clips told by ear.

    Of the published pairs, 19 of 36 speakers say the three common sentences disgustedly as 028-030, not as 001-003.
    Which is the case is what aligns better with the speaker's neutral 001-003.

    Args:
      clips: Clips of layout "mead", sentences by number.
      cost: Mean alignment cost of two clips, None where they cannot be aligned.
    """
    by_name = {(clip.speaker, clip.emotion, clip.name): clip for clip in clips}
    renamed: dict[str, str] = {}
    remarks = []
    for speaker in sorted({clip.speaker for clip in clips}):
        neutral = [by_name.get((speaker, "neutral", name)) for name in _FIRST]
        costs = []
        for names in (_FIRST, _LAST):
            candidates = [by_name.get((speaker, "disgusted", name)) for name in names]
            found = [cost(q, k) for q, k in zip(neutral, candidates, strict=True) if q is not None and k is not None]
            known = [value for value in found if value is not None]
            costs.append(sum(known) / len(known) if known else np.inf)
        if costs[1] < costs[0]:
            renamed |= {f"{speaker}/{name}": f"disgusted-{name}" for name in _FIRST}
            renamed |= {f"{speaker}/{last}": first for first, last in zip(_FIRST, _LAST, strict=True)}
            remarks.append(
                Problem(
                    f"{speaker}/disgusted",
                    f"028-030 are taken for the sentences 001-003 (cost {costs[1]:.2f} against {costs[0]:.2f})",
                    "kept",
                )
            )
    result = [
        dataclasses.replace(clip, sentence=renamed.get(f"{clip.speaker}/{clip.name}", clip.sentence))
        if clip.emotion == "disgusted"
        else clip
        for clip in clips
    ]
    return result, remarks


def pair_record(pair: ClipPair, kept: Mapping[str, Int[np.ndarray, " t"]]) -> ClipPairRecord | None:
    """Returns the pair as a record, without the entries whose frame was dropped; None if nothing is left.

    Args:
      pair: An aligned pair.
      kept: Numbers of the kept frames of each clip by its id.
    """
    present = np.isin(pair.query_frame, kept[pair.query.clip_id]) & np.isin(pair.key_frame, kept[pair.key.clip_id])
    if not present.any():
        return None
    return ClipPairRecord(
        query_clip=pair.query.clip_id,
        key_clip=pair.key.clip_id,
        speaker=pair.query.speaker,
        sentence=pair.query.sentence,
        query_emotion=pair.query.emotion,
        key_emotion=pair.key.emotion,
        query_frame=pair.query_frame[present],
        key_frame=pair.key_frame[present],
        cost=pair.cost,
    )


def _named_clips(name: str, queries: Mapping[str, Clip], keys: Mapping[str, Clip]) -> tuple[Clip, Clip]:
    # Names may hold underscores themselves, so every split of "NNN_EEE" is tried.
    parts = name.split("_")
    for cut in range(1, len(parts)):
        query, key = queries.get("_".join(parts[:cut])), keys.get("_".join(parts[cut:]))
        if query is not None and key is not None:
            return query, key
    raise ValueError("no such clips among the usable ones")


def _check_path(query_frame: Int[np.ndarray, " n"], key_frame: Int[np.ndarray, " m"]) -> None:
    if query_frame.ndim != 1 or query_frame.shape != key_frame.shape or not query_frame.size:
        raise ValueError("expected two lists of frames of one length")
    for frames in (query_frame, key_frame):
        if frames[0] < 0 or np.any(np.diff(frames) < 0):
            raise ValueError("frames must count from 0 and never fall")


# One pair of clips from their prepared sound to an aligned path, kept in the work folder.


@dataclasses.dataclass(frozen=True)
class PairTask:
    """Two clips to be aligned.

    Attributes:
      work: Where the prepared clips lie.
      query: The neutral clip.
      key: The clip in another emotion.
      inputs: Keys of the two clips' statuses: with the settings, all that the path depends on.
      settings: What a path may do.
    """

    work: WorkFolder
    query: Clip
    key: Clip
    inputs: tuple[str, str]
    settings: AlignmentSettings

    @property
    def result_path(self) -> Path:
        """Where the path lies once it is found."""
        names = f"{self.query.file_name}--{self.key.file_name}"
        return self.work.path / "pairs" / f"{name_hash(names)[:32]}.json"

    @property
    def digest(self) -> str:
        """Digest of all that the path depends on."""
        parts = [*self.inputs, dataclasses.asdict(self.settings)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def result(self) -> Alignment | str | None:
        """Returns the path, or why there is none, or None before `align_pair`."""
        try:
            fields = json.loads(self.result_path.read_text())
        except (OSError, ValueError):
            return None
        if fields["digest"] != self.digest:
            return None
        if fields["problem"]:
            return str(fields["problem"])
        query, key = (np.asarray(fields[name], np.int64) for name in ("query", "key"))
        return Alignment(query=query, key=key, cost=fields["cost"])


def align_clips(work: WorkFolder, query: Clip, key: Clip, settings: AlignmentSettings) -> Alignment:
    """Returns the aligned frames of two prepared clips; raises `UnalignableError` where there are none."""
    first, second = work.speech(query), work.speech(key)
    path = align_speech(first.speech, second.speech, settings)
    return Alignment(query=first.frames[path.query], key=second.frames[path.key], cost=path.cost)


def align_pair(task: PairTask) -> None:
    """Aligns one pair and writes the path, unless that is done."""
    if task.result() is not None:
        return
    fields: dict[str, object] = {"digest": task.digest, "problem": None}
    try:
        path = align_clips(task.work, task.query, task.key, task.settings)
        fields |= {"query": path.query.tolist(), "key": path.key.tolist(), "cost": round(path.cost, 6)}
    except UnalignableError as error:
        fields["problem"] = str(error)
    write_atomically(task.result_path, json.dumps(fields))


# From prepared clips to aligned pairs: sentences settled, clips matched, paths found or taken from a list.

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
