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
import simplejpeg
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import EMOTIONS, FrameRecord
from asccl_jax.evals.figure_style import png
from asccl_jax.work import write_atomically
from data_prep.media.clips import Clip, Problem
from data_prep.prepare.clip_records import ClipStatus, WorkFolder
from data_prep.prepare.pairing import ClipPair
from data_prep.prepare.prepare_settings import Preparation

__all__ = [
    "Outcome",
    "draw_aligned_frames",
    "draw_crops",
    "draw_paths",
    "summarise",
    "write_report",
]

# Pictures of a preparation: sample crops, aligned frames side by side, and the paths through pairs of clips.

_TILE = 112
_LABEL = 14
_SPEAKERS = 8
_PAIRS = 4
_MOMENTS = 8
_CURVES = 6


def draw_crops(path: Path, clips: Sequence[Clip], statuses: Mapping[str, ClipStatus], work: WorkFolder) -> str | None:
    """Draws a frame of each speaker in each emotion, landmarks dotted; returns the file's name, None without clips."""
    speakers = sorted({clip.speaker for clip in clips})
    speakers = [speakers[i] for i in _spread(len(speakers), _SPEAKERS)]
    emotions = [emotion for emotion in EMOTIONS if any(clip.emotion == emotion for clip in clips)]
    if not speakers:
        return None
    sheet = Image.new("RGB", (len(emotions) * _TILE, len(speakers) * (_TILE + _LABEL)), "white")
    pen = _pen(sheet)
    for row, speaker in enumerate(speakers):
        for column, emotion in enumerate(emotions):
            clip = next((c for c in clips if (c.speaker, c.emotion) == (speaker, emotion)), None)
            place = (column * _TILE, row * (_TILE + _LABEL))
            pen.text((place[0] + 3, place[1] + 1), f"{speaker} {emotion}"[:20], fill="black")
            if clip is None:
                continue
            frame = _frame(work, clip, statuses[clip.clip_id].kept // 2)
            tile = _tile(simplejpeg.decode_jpeg(frame.image))
            dots = (frame.landmarks + 0.5) * (_TILE / _side(frame))
            sheet.paste(tile, (place[0], place[1] + _LABEL))
            for x, y in dots.tolist():
                centre = (place[0] + x, place[1] + _LABEL + y)
                pen.ellipse((centre[0] - 1, centre[1] - 1, centre[0] + 1, centre[1] + 1), fill="#00e676")
    sheet.save(path)
    return path.name


def draw_aligned_frames(path: Path, pairs: Sequence[ClipPair], work: WorkFolder) -> str | None:
    """Draws moments of some pairs, neutral above emotional; returns the file's name, None without pairs."""
    chosen = [pairs[i] for i in _spread(len(pairs), _PAIRS)]
    if not chosen:
        return None
    height = 2 * _TILE + _LABEL
    sheet = Image.new("RGB", (_MOMENTS * _TILE, len(chosen) * (height + 4)), "white")
    pen = _pen(sheet)
    for row, pair in enumerate(chosen):
        top = row * (height + 4)
        pen.text((3, top + 1), f"{pair.query.clip_id} above {pair.key.clip_id}, frames side by side", fill="black")
        for line, (clip, frames) in enumerate(((pair.query, pair.query_frame), (pair.key, pair.key_frame))):
            source = RecordSource([work.records(clip)])
            stored = {record.frame: record for record in map(FrameRecord.decode, source)}
            for column, entry in enumerate(_spread(len(frames), _MOMENTS)):
                frame = stored.get(int(frames[entry]))
                if frame is not None:
                    tile = _tile(simplejpeg.decode_jpeg(frame.image))
                    sheet.paste(tile, (column * _TILE, top + _LABEL + line * _TILE))
    sheet.save(path)
    return path.name


def draw_paths(path: Path, pairs: Sequence[ClipPair]) -> str | None:
    """Draws paths from the best to the worst cost; returns the file's name, None without pairs."""
    ranked = sorted(pairs, key=lambda pair: (pair.cost, pair.name))
    chosen = [ranked[i] for i in _spread(len(ranked), _CURVES)]
    if not chosen:
        return None
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.2 * rows), dpi=110)
    figure.subplots_adjust(0.18 / columns, 0.16 / rows, 1 - 0.05 / columns, 1 - 0.14 / rows, wspace=0.3, hspace=0.5)
    for number, pair in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, number + 1)
        ends = (pair.query_frame[[0, -1]], pair.key_frame[[0, -1]])
        axes.plot(*ends, color="0.8", linewidth=1)
        axes.plot(pair.query_frame, pair.key_frame, linewidth=1.5)
        axes.set_title(f"{pair.key.clip_id}\ncost {pair.cost:.2f}", fontsize=8)
        axes.set_xlabel(f"frame of {pair.query.clip_id}", fontsize=7)
        axes.set_ylabel("frame", fontsize=7)
        axes.tick_params(labelsize=7)
    path.write_bytes(png(figure))
    return path.name


def _pen(sheet: Image.Image) -> ImageDraw.ImageDraw:
    pen = ImageDraw.Draw(sheet)
    pen.font = ImageFont.load_default(size=11)
    return pen


def _frame(work: WorkFolder, clip: Clip, number: int) -> FrameRecord:
    return FrameRecord.decode(RecordSource([work.records(clip)])[number])


def _tile(image: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
    return Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.BILINEAR)


def _side(frame: FrameRecord) -> int:
    return int(simplejpeg.decode_jpeg_header(frame.image)[0])


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` numbers below `count`, evenly spread and with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist() if count else []


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
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
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
