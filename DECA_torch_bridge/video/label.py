"""A small word in a corner of the picture, which says that it is synthetic."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from jaxtyping import UInt8

from DECA_torch_bridge.video.yuv_picture import YuvPicture

__all__ = ["draw_label"]

_WORD = "SYNTHETIC"
_SHARE = 0.03
"""Height of the letters over that of the picture."""

_LEAST_PX = 7
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHADE = 0.45
"""Brightness that is left of the picture behind the word."""


def draw_label(picture: YuvPicture) -> None:
    """Writes the word into the lower left corner of a picture, white on a darkened strip."""
    height, width = picture.size
    letters = _letters(max(_LEAST_PX, round(_SHARE * min(height, width))))
    rows, columns = min(letters.shape[0], height), min(letters.shape[1], width)
    box = (0, height - rows, columns, height)
    before = picture.rgb(box)
    strength = letters[:rows, :columns, None].astype(np.float32) / 255
    after = before * _SHADE * (1 - strength) + 255 * strength
    picture.change(box, before, np.rint(after).astype(np.uint8))


@functools.lru_cache(maxsize=4)
def _letters(height_px: int) -> UInt8[np.ndarray, "h w"]:
    """The word, white on black, in a strip of even sides."""
    scale = cv2.getFontScaleFromHeight(_FONT, height_px)
    thickness = max(1, round(height_px / 9))
    (width, height), below = cv2.getTextSize(_WORD, _FONT, scale, thickness)
    margin = max(2, height_px // 3)
    strip = np.zeros((height + below + 2 * margin, width + 2 * margin), np.uint8)
    cv2.putText(strip, _WORD, (margin, margin + height), _FONT, scale, 255, thickness, cv2.LINE_AA)
    return strip[: len(strip) // 2 * 2, : strip.shape[1] // 2 * 2]
