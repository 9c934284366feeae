"""Which clips are compared: one speaker, one sentence, neutral against each other emotion.

Clips match by sentence, not by number: MEAD's numbers mean other sentences in other emotions. Pairs come from the
sound (`alignment`) or from a list in the layout of the published `aligned_path36.json`.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from asccl_jax.data.atomic import write_atomically
from asccl_jax.data.schema import ClipPairRecord
from asccl_jax.errors import InputError
from data_prep.clips import Clip, Problem, emotion_name, name_key

__all__ = [
    "ClipPair",
    "adopt_sentences",
    "export_pairs",
    "import_pairs",
    "match_sentences",
    "name_disgusted_sentences",
    "pair_record",
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
