"""Pictures as videos store them, luma and halved chroma, changed in boxes and nowhere else.

A frame that went to RGB and back would not be what it was. Here a box is read as RGB, and of what becomes of it only
the difference is put back: pixels that nothing changes keep their bits.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Int, UInt8

from data_prep.media.shown_media import Orientation

__all__ = ["Box", "YuvPicture"]

_AS_STORED = Orientation()

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two exclusive; may reach beyond the picture."""

_MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M, 9: Colorspace.BT2020}
"""Number of a colour matrix in files (ITU-T H.273) -> its name in FFmpeg's converter; 601 where there is none."""

_PLANAR = {"yuv420p": None, "yuvj420p": int(ColorRange.JPEG)}
"""Pixel formats whose planes are taken as they are, and the range of values that the name itself tells."""


@dataclasses.dataclass(frozen=True)
class Colours:
    """What a file says of its colours, in the numbers of ITU-T H.273; 2 is "not said".

    Attributes:
      matrix: How luma and chroma come from RGB.
      value_range: 1 for 16..235, 2 for 0..255, 0 not said.
      primaries: Which red, green and blue.
      transfer: Which curve of brightness.
    """

    matrix: int = 2
    value_range: int = 0
    primaries: int = 2
    transfer: int = 2


@dataclasses.dataclass(frozen=True, eq=False)
class YuvPicture:
    """A picture with chroma at half its size, upright, its sides even.

    Attributes:
      planes: Luma, blue and red difference; may be written to.
      colours: What they mean.
    """

    planes: tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "ch cw"], UInt8[np.ndarray, "ch cw"]]
    colours: Colours

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, even."""
        return self.planes[0].shape[0], self.planes[0].shape[1]

    @classmethod
    def of_frame(cls, frame: Any, orientation: Orientation = _AS_STORED) -> Self:
        """Returns a decoded frame; an odd side is one pixel longer, its last row or column repeated.

        Args:
          frame: The frame.
          orientation: How it is to be seen.
        """
        colours = Colours(frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
        if frame.width % 2 or frame.height % 2:
            return cls.of_rgb(orientation.upright(frame.to_ndarray(format="rgb24")), colours=colours)
        if frame.format.name in _PLANAR:
            value_range = _PLANAR[frame.format.name]
            colours = dataclasses.replace(colours, value_range=value_range or colours.value_range)
        else:
            if frame.format.is_rgb:
                colours = dataclasses.replace(colours, matrix=1, value_range=1)
            frame = frame.reformat(format="yuv420p", **_target(colours))
        planes = (orientation.upright(_plane(plane)) for plane in frame.planes)
        return cls(tuple(planes), colours)  # type: ignore[arg-type]

    @classmethod
    def of_rgb(cls, image: UInt8[np.ndarray, "h w 3"], *, colours: Colours | None = None) -> Self:
        """Returns an RGB picture; an odd side is one pixel longer, its last row or column repeated."""
        colours = colours or Colours(matrix=1, value_range=1, primaries=1, transfer=1)
        if image.shape[0] % 2 or image.shape[1] % 2:
            image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        return cls(_planes_of_rgb(image, colours), colours)

    def rgb(self, box: Box | None = None) -> UInt8[np.ndarray, "bh bw 3"]:
        """Returns a part of the picture, or all of it; beyond the picture its outermost pixels are repeated.

        Args:
          box: On even pixels.
        """
        left, top, right, bottom = box or (0, 0, *self.size[::-1])
        parts = []
        for plane, step in zip(self.planes, (1, 2, 2), strict=True):
            rows, columns = (
                np.clip(np.arange(first // step, last // step), 0, side - 1)
                for first, last, side in ((top, bottom, plane.shape[0]), (left, right, plane.shape[1]))
            )
            parts.append(plane[rows[:, None], columns])
        return _frame(parts, self.colours).to_ndarray(format="rgb24")

    def change(self, box: Box, before: UInt8[np.ndarray, "bh bw 3"], after: UInt8[np.ndarray, "bh bw 3"]) -> None:
        """Adds what became of a box; what lies beyond the picture is dropped.

        Args:
          box: On even pixels.
          before: What `rgb` gave.
          after: What is to be seen there.
        """
        left, top, _, _ = box
        pairs = zip(_planes_of_rgb(before, self.colours), _planes_of_rgb(after, self.colours), strict=True)
        for plane, (old, new), step in zip(self.planes, pairs, (1, 2, 2), strict=True):
            difference = new.astype(np.int16) - old
            y, x = top // step, left // step
            rows = slice(max(y, 0), max(0, min(y + len(old), plane.shape[0])))
            columns = slice(max(x, 0), max(0, min(x + old.shape[1], plane.shape[1])))
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue
            shown: Int[np.ndarray, "h w"] = difference[
                rows.start - y : rows.stop - y, columns.start - x : columns.stop - x
            ]
            plane[rows, columns] = np.clip(plane[rows, columns] + shown, 0, 255)

    def frame(self) -> Any:
        """Returns the picture for an encoder."""
        return _frame(self.planes, self.colours)


def _frame(planes: Any, colours: Colours) -> Any:
    width = planes[0].shape[1]
    packed = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in planes]).reshape(-1, width)
    frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    target = _target(colours)
    frame.colorspace, frame.color_range = target["dst_colorspace"], target["dst_color_range"]
    return frame


def _target(colours: Colours) -> dict[str, int]:
    matrix = _MATRICES.get(colours.matrix, Colorspace.ITU601)
    value_range = ColorRange.JPEG if colours.value_range == ColorRange.JPEG else ColorRange.MPEG
    return {"dst_colorspace": int(matrix), "dst_color_range": int(value_range)}


def _planes_of_rgb(
    image: UInt8[np.ndarray, "h w 3"], colours: Colours
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "ch cw"], UInt8[np.ndarray, "ch cw"]]:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    luma, blue, red = map(_plane, frame.reformat(format="yuv420p", **_target(colours)).planes)
    return luma, blue, red


def _plane(plane: Any) -> UInt8[np.ndarray, "h w"]:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width].copy()
