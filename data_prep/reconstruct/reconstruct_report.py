"""What became of every clip: `report.json` for programs, `report.html` with a contact sheet for people."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import FrameRecord, RenderRecord
from asccl_jax.work import write_atomically
from data_prep.media.clips import Problem
from data_prep.reconstruct.clip_inputs import InputClip
from data_prep.reconstruct.folders import frame_path
from data_prep.reconstruct.reconstruct_settings import Reconstruction
from data_prep.reconstruct.speaker_step import speaker_file_name
from data_prep.reconstruct.work import WorkFolder

__all__ = [
    "Outcome",
    "SheetRow",
    "draw_sheet",
    "evenly",
    "row_of_folder",
    "row_of_records",
    "summarise",
    "write_report",
]

# One picture to judge a reconstruction by: frames, the head laid over them, NMFC and shape, a row each.

_TILE = 160
_LABEL = 16
_VISIBLE = 0.55  # Share of the head in an overlay.


@dataclasses.dataclass(frozen=True, eq=False)
class SheetRow:
    """A row: what it shows, and its pictures under their headings."""

    label: str
    pictures: dict[str, UInt8[np.ndarray, "_ _ 3"]]


def draw_sheet(path: Path, rows: Sequence[SheetRow]) -> str | None:
    """Draws the rows and returns the file's name, None without rows."""
    if not rows:
        return None
    headings = list(rows[0].pictures)
    sheet = Image.new("RGB", (len(headings) * _TILE, _LABEL + len(rows) * (_TILE + _LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.font = ImageFont.load_default(size=11)
    for column, heading in enumerate(headings):
        pen.text((column * _TILE + 3, 1), heading, fill="black")
    for number, row in enumerate(rows):
        top = _LABEL + number * (_TILE + _LABEL)
        pen.text((3, top + 2), row.label, fill="#56616d")
        for column, picture in enumerate(row.pictures.values()):
            tile = Image.fromarray(np.ascontiguousarray(picture)).resize((_TILE, _TILE), Image.Resampling.BILINEAR)
            sheet.paste(tile, (column * _TILE, top + _LABEL))
    sheet.save(path)
    return path.name


def row_of_records(label: str, frames: Path, renders: Path, position: int) -> SheetRow:
    """Returns a row of a frame in a clip's record files."""
    frame = FrameRecord.decode(RecordSource([frames])[position])
    render = RenderRecord.decode(RecordSource([renders])[position])
    crop = simplejpeg.decode_jpeg(frame.image, "RGB")
    aligned = simplejpeg.decode_jpeg(render.aligned_image, "RGB")
    shape = _png(render.detail_image or render.shape_image)
    pictures = {
        "crop": crop,
        "head over it": _overlay(crop, shape, _png(render.alpha_image)),
        "NMFC": _png(render.nmfc_image),
        "detail shape" if render.detail_image else "shape": shape,
        "aligned": aligned,
        "aligned NMFC over it": _overlay(aligned, _png(render.aligned_nmfc_image), _png(render.aligned_alpha_image)),
        "aligned shape": _png(render.aligned_detail_image or render.aligned_shape_image),
    }
    return SheetRow(_flagged(f"{label}, frame {frame.frame}", render.flags), pictures)


def row_of_folder(label: str, folder: Path, number: int, *, flags: int, train: bool) -> SheetRow:
    """Returns a row of a frame in a subject's folders."""
    kinds = ("images", "nmfcs", "shapes", "nmfcs_aligned", "shapes_aligned")
    files = (frame_path(folder, kind, number, ".png", sequences=train) for kind in kinds)
    image, nmfc, shape, nmfc_aligned, shape_aligned = (_png(path.read_bytes()) for path in files)
    pictures = {
        "crop": image,
        "head over it": _overlay(image, shape, nmfc),
        "NMFC": nmfc,
        "shape": shape,
        "aligned NMFC": nmfc_aligned,
        "aligned shape": shape_aligned,
    }
    return SheetRow(_flagged(f"{label}, number {number}", flags), pictures)


def evenly(count: int, wanted: int) -> list[int]:
    """Returns at most `wanted` numbers below `count`, evenly spread, neither end preferred."""
    some = min(count, wanted)
    return [int((2 * place + 1) * count / (2 * some)) for place in range(some)]


def _flagged(label: str, flags: int) -> str:
    return f"{label} (flags {flags})" if flags else label


def _overlay(
    image: UInt8[np.ndarray, "h w 3"], drawn: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    share = _VISIBLE * (mask.max(axis=-1, keepdims=True) > 0)
    return ((1 - share) * image + share * drawn).round().astype(np.uint8)


def _png(content: bytes) -> UInt8[np.ndarray, "h w 3"]:
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1], np.uint8)


_LONGEST_TABLE = 200
_SHEET_CLIPS = 8
_SHEET_FRAMES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a reconstruction did.

    Attributes:
      settings: What was asked.
      items: Every clip of this part.
      statuses: What became of each, by its id.
      problems: All that was dropped, or kept with a reservation.
      shapes: Status of each speaker's shape.
    """

    settings: Reconstruction
    items: Sequence[InputClip]
    statuses: Mapping[str, Mapping[str, Any]]
    problems: list[Problem]
    shapes: Mapping[str, Mapping[str, Any]]

    @property
    def usable(self) -> list[InputClip]:
        """Clips with results."""
        return [item for item in self.items if self.statuses[item.name]["problem"] is None]


def summarise(outcome: Outcome) -> dict[str, Any]:
    """Returns the figures of a reconstruction, as `report.json` holds them."""
    usable = [outcome.statuses[item.name] for item in outcome.usable]
    flagged: collections.Counter[str] = collections.Counter()
    for status in usable:
        flagged.update(status["flagged"])
    residuals = [status["residual_px"] for status in usable if status["residual_px"] is not None]
    return {
        "name": outcome.settings.title,
        "settings": outcome.settings.described(),
        "clips": {
            "found": len(outcome.items),
            "kept": len(usable),
            "dropped": len(outcome.items) - len(usable),
        },
        "frames": {
            "written": sum(status["frames"] for status in usable),
            "without_flags": sum(status["trusted"] for status in usable),
            "flagged": dict(flagged.most_common()),
        },
        "residual_px": round(float(np.median(residuals)), 3) if residuals else None,
        "speakers": [_speaker_figures(name, status) for name, status in sorted(outcome.shapes.items())],
        "problems": [dataclasses.asdict(problem) for problem in outcome.problems],
        "clip_list": [_clip_figures(item, outcome) for item in outcome.items],
    }


def write_report(outcome: Outcome, work: WorkFolder) -> Path:
    """Writes report.json, report.html and the contact sheet; returns the page's path.

    Args:
      outcome: What to report.
      work: Where the finished clips lie, for the pictures.
    """
    folder = outcome.settings.output / "report"
    folder.mkdir(parents=True, exist_ok=True)
    figures = summarise(outcome)
    write_atomically(folder / "report.json", json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    sheet = draw_sheet(folder / "contact_sheet.png", _sheet_rows(outcome, work))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        figures=figures, sheet=sheet, reasons=_by_reason(outcome.problems), longest=_LONGEST_TABLE
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def _speaker_figures(name: str, status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "speaker": name,
        "problem": status["problem"],
        "neutral": status.get("neutral"),
        "clips": status.get("clips", []),
        "frames": status.get("frames"),
        "note": status.get("note", ""),
    }


def _clip_figures(item: InputClip, outcome: Outcome) -> dict[str, Any]:
    status = outcome.statuses[item.name]
    known = ("frames", "fps", "trusted", "flagged", "residual_px", "units_valid", "notes", "codes")
    labels = {"clip": item.name, "speaker": item.clip.speaker, "emotion": item.clip.emotion, "split": item.split}
    return {**labels, "problem": status["problem"], **{name: status.get(name) for name in known}}


def _sheet_rows(outcome: Outcome, work: WorkFolder) -> list[SheetRow]:
    """Frames spread over clips that are spread over the data set; the last of them is one without a face, if any."""
    usable = outcome.usable
    chosen = [usable[place] for place in evenly(len(usable), _SHEET_CLIPS)]
    each = max(1, _SHEET_FRAMES // max(1, len(chosen)))
    rows = []
    for item in chosen:
        status = outcome.statuses[item.name]
        for position in evenly(status["frames"], each):
            rows.append(_sheet_row(item, position, outcome, work))
    return rows


def _sheet_row(item: InputClip, position: int, outcome: Outcome, work: WorkFolder) -> SheetRow:
    settings, name = outcome.settings, item.clip.file_name
    if settings.layout_out == "records":
        frames, renders = (work.file("clips", name, f".{kind}.tfrecord") for kind in ("frames", "renders"))
        return row_of_records(item.name, frames, renders, position)
    folder = settings.output / speaker_file_name(item.clip.speaker)
    number = outcome.statuses[item.name]["first_number"] + position
    with np.load(folder / "tracks" / f"{name}.npz", allow_pickle=False) as track:
        flags = int(track["flags"][position])
    return row_of_folder(item.name, folder, number, flags=flags, train=settings.train_folders)


def _by_reason(problems: Sequence[Problem]) -> list[tuple[str, str, list[str]]]:
    """Problems of one outcome and reason together, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for problem in problems:
        groups[problem.outcome, problem.reason].append(problem.subject)
    ordered = sorted(groups.items(), key=lambda group: (group[0][0] != "dropped", -len(group[1])))
    return [(outcome, reason, subjects) for (outcome, reason), subjects in ordered]
