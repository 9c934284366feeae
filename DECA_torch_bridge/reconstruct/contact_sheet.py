"""One picture to judge a reconstruction by: frames, the head laid over them, NMFC and shape, a row each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import FrameRecord, RenderRecord
from DECA_torch_bridge.reconstruct.folders import frame_path

__all__ = ["SheetRow", "draw_sheet", "evenly", "row_of_folder", "row_of_records"]

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
