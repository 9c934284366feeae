"""Pictures of a preparation: sample crops, aligned frames side by side, and the paths through pairs of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import EMOTIONS, FrameRecord
from asccl_jax.evals.figure_style import png
from data_prep.clip_records import ClipStatus, WorkFolder
from data_prep.clips import Clip
from data_prep.pairing import ClipPair

__all__ = ["draw_aligned_frames", "draw_crops", "draw_paths"]

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
