"""Scene cuts of a video: where a picture is unlike the last one, stays so, and its neighbours move far less."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

__all__ = ["SceneCuts"]

_SIDE = 64
_LEAST_CHANGE = 8.0
"""Grey levels of 255, mean over the picture; talking heads change by 1 to 4 from frame to frame."""
_LEAST_UNLIKENESS = 0.03
"""One minus the correlation of the pictures: more light or less alone does not change it."""
_TIMES_THE_NEIGHBOURS = 4.0
_NEIGHBOURS = 8
"""Changes before, and as many after, that a cut must stand out from."""
_QUANTILE = 80
"""Of the neighbours: another cut among them does not hide this one, held frames do not make the others stand out."""
_FLASH = 2
"""Frames after which a picture that is as before was a flash and no cut."""


class SceneCuts:
    """Finds cuts in pictures given one by one; what it keeps of each is two numbers."""

    def __init__(self) -> None:
        self._last: collections.deque[Float32[np.ndarray, "s s 3"]] = collections.deque(maxlen=_FLASH + 1)
        self._changes: list[float] = []
        self._unlike: list[bool] = []

    def add(self, image: UInt8[np.ndarray, "h w 3"] | None) -> None:
        """Takes the next picture; None, of one that cannot be read, counts as no change."""
        if image is None:
            small = self._last[-1] if self._last else np.zeros((_SIDE, _SIDE, 3), np.float32)
        else:
            small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        if self._last:
            self._changes.append(float(np.abs(small - self._last[-1]).mean()))
            self._unlike.append(True)
        for back, before in enumerate(reversed(self._last), start=1):
            if not _unlike(before, small):  # then no cut lies between the two: what does was a flash
                self._unlike[-back:] = [False] * back
        self._last.append(small)

    def found(self) -> list[int]:
        """Returns the numbers of the frames that begin a new scene."""
        changes = np.array(self._changes)
        return [
            pair + 1
            for pair in np.flatnonzero(np.array(self._unlike, bool)).tolist()
            if changes[pair] >= _TIMES_THE_NEIGHBOURS * _usual(changes, pair)
        ]

    @classmethod
    def of(cls, images: Iterable[UInt8[np.ndarray, "h w 3"]]) -> list[int]:
        """Returns the cuts of some pictures."""
        cuts = cls()
        for image in images:
            cuts.add(image)
        return cuts.found()


def _unlike(a: Float32[np.ndarray, "s s 3"], b: Float32[np.ndarray, "s s 3"]) -> bool:
    if float(np.abs(a - b).mean()) < _LEAST_CHANGE:
        return False
    first, second = (image.mean(axis=-1).ravel() - image.mean() for image in (a, b))
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return size == 0 or 1 - float(first @ second) / size >= _LEAST_UNLIKENESS


def _usual(changes: Float[np.ndarray, " n"], pair: int) -> float:
    nearby: Int64[np.ndarray, " m"] = np.arange(max(pair - _NEIGHBOURS, 0), min(pair + _NEIGHBOURS + 1, len(changes)))
    others = changes[nearby[nearby != pair]]
    return float(np.percentile(others, _QUANTILE)) if len(others) else 0.0
