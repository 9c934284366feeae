"""What became of every clip: `report.json` for programs, `report.html` with pictures for people."""

from __future__ import annotations

import collections
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from asccl_jax.data.atomic import write_atomically
from asccl_jax.data.schema import EMOTIONS
from data_prep.clip_records import ClipStatus, WorkFolder
from data_prep.clips import Clip, Problem
from data_prep.pairing import ClipPair
from data_prep.report_pictures import draw_aligned_frames, draw_crops, draw_paths
from data_prep.settings import Preparation

__all__ = ["Outcome", "summarise", "write_report"]

_LONGEST_TABLE = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a preparation did.

    Attributes:
      settings: What was asked.
      clips: Every clip found.
      statuses: What became of each, by its id.
      problems: All that was dropped, or kept with a reservation.
      splits: Split of each usable clip by its id.
      pairs: Aligned pairs in the data set.
      costly: Pairs left out because their cost stands out.
    """

    settings: Preparation
    clips: Sequence[Clip]
    statuses: Mapping[str, ClipStatus]
    problems: list[Problem]
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pairs: Sequence[ClipPair] = ()
    costly: int = 0

    @property
    def usable(self) -> list[Clip]:
        """Clips whose frames are kept."""
        return [clip for clip in self.clips if self.statuses[clip.clip_id].problem is None]


def summarise(outcome: Outcome) -> dict[str, Any]:
    """Returns the figures of a preparation, as `report.json` holds them."""
    usable = outcome.usable
    kept = [outcome.statuses[clip.clip_id] for clip in usable]
    dropped: collections.Counter[str] = collections.Counter()
    for status in kept:
        dropped.update(status.dropped)
    paths = [_path_figures(pair) for pair in outcome.pairs]
    return {
        "name": outcome.settings.title,
        "settings": outcome.settings.described(),
        "clips": {"found": len(outcome.clips), "kept": len(usable), "dropped": len(outcome.clips) - len(usable)},
        "frames": {
            "kept": sum(status.kept for status in kept),
            "dropped": sum(dropped.values()),
            "dropped_by_reason": dict(dropped.most_common()),
        },
        "splits": {split: _split_figures(outcome, split) for split in sorted(set(outcome.splits.values()))},
        "pairs": {
            "count": len(paths),
            "left_out_by_cost": outcome.costly,
            "aligned_frames": sum(path["frames"] for path in paths),
            "median_cost": round(statistics.median(pair.cost for pair in outcome.pairs), 4) if paths else None,
            "diagonal_steps": round(statistics.mean(path["diagonal_steps"] for path in paths), 4) if paths else None,
            "longest_hold": max((path["longest_hold"] for path in paths), default=None),
        },
        "problems": [dataclasses.asdict(problem) for problem in outcome.problems],
        "clip_list": [_clip_figures(clip, outcome) for clip in outcome.clips],
        "pair_list": paths,
    }


def write_report(outcome: Outcome, work: WorkFolder) -> Path:
    """Writes report.json, report.html and its pictures; returns the page's path.

    Args:
      outcome: What to report.
      work: Where the prepared clips lie, for the pictures.
    """
    folder = outcome.settings.output / "report"
    folder.mkdir(parents=True, exist_ok=True)
    figures = summarise(outcome)
    write_atomically(folder / "report.json", json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    pictures = {
        "crops": draw_crops(folder / "crops.png", outcome.usable, outcome.statuses, work),
        "aligned_frames": draw_aligned_frames(folder / "aligned_frames.png", outcome.pairs, work),
        "paths": draw_paths(folder / "paths.png", outcome.pairs),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("data_prep", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        figures=figures,
        pictures=pictures,
        emotions=EMOTIONS,
        table=_speaker_table(outcome),
        reasons=_by_reason(outcome.problems),
        longest=_LONGEST_TABLE,
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def _split_figures(outcome: Outcome, split: str) -> dict[str, Any]:
    clips = [clip for clip in outcome.usable if outcome.splits[clip.clip_id] == split]
    return {
        "speakers": sorted({clip.speaker for clip in clips}),
        "clips": len(clips),
        "frames": sum(outcome.statuses[clip.clip_id].kept for clip in clips),
        "pairs": sum(outcome.splits[pair.query.clip_id] == split for pair in outcome.pairs),
    }


def _path_figures(pair: ClipPair) -> dict[str, Any]:
    steps = np.diff(np.stack([pair.query_frame, pair.key_frame]), axis=1)
    holds = max(int(np.unique(frames, return_counts=True)[1].max()) for frames in (pair.query_frame, pair.key_frame))
    return {
        "query": pair.query.clip_id,
        "key": pair.key.clip_id,
        "frames": len(pair.query_frame),
        "cost": round(pair.cost, 4),
        "diagonal_steps": round(float(np.mean(np.all(steps > 0, axis=0))), 4) if steps.size else 1.0,
        "longest_hold": holds,
    }


def _clip_figures(clip: Clip, outcome: Outcome) -> dict[str, Any]:
    status = outcome.statuses[clip.clip_id]
    return {
        "clip": clip.clip_id,
        "speaker": clip.speaker,
        "emotion": clip.emotion,
        "sentence": clip.sentence,
        "split": outcome.splits.get(clip.clip_id),
        "kept": status.kept,
        "dropped": status.dropped,
        "fps": status.fps,
        "problem": status.problem,
        "remarks": list(status.remarks),
    }


def _speaker_table(outcome: Outcome) -> dict[str, dict[str, tuple[int, int]]]:
    """Clips and frames kept of each speaker in each emotion."""
    table: dict[str, dict[str, tuple[int, int]]] = {}
    for clip in outcome.usable:
        row = table.setdefault(clip.speaker, dict.fromkeys(EMOTIONS, (0, 0)))
        clips, frames = row[clip.emotion]
        row[clip.emotion] = (clips + 1, frames + outcome.statuses[clip.clip_id].kept)
    return table


def _by_reason(problems: Sequence[Problem]) -> list[tuple[str, str, list[str]]]:
    """Problems of one outcome and reason together, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for problem in problems:
        groups[problem.outcome, problem.reason].append(problem.subject)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] != "dropped", -len(item[1])))
    return [(outcome, reason, subjects) for (outcome, reason), subjects in ordered]
