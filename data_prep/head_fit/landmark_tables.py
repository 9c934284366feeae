"""Where a landmark detector puts its 68 points on a head: one table per detector, learnt once and stored here.

Detectors agree on what a brow or an eye corner is to a few millimetres only. That bias is the same in every frame of
every speaker; left in, the fit takes it for shape and expression.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from asccl_jax.errors import InputError
from asccl_jax.work import write_atomically

__all__ = ["TABLE_NAMES", "LandmarkTable", "load_table", "save_table"]

TABLE_NAMES = ("mediapipe", "synthetic", "face-alignment", "dlib")

_FOLDER = Path(__file__).parent / "tables"

_SAME_ANNOTATION = {"face-alignment": "dlib"}
"""Detectors that nobody has measured here, and a measured one that was trained on the same annotation (300-W)."""


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkTable:
    """Offsets of a detector's landmarks from the built-in head's own.

    Attributes:
      detector: One of `TABLE_NAMES`.
      offsets_m: Added to landmarks 17..67 of the mean head at rest.
      insets_m: How far inside the face's outline landmarks 0..16 lie.
      made: How the table was made.
      remark: What a user of the results has to know of it; empty where this very detector was measured on this head.
    """

    detector: str
    offsets_m: Float[np.ndarray, "51 3"]
    insets_m: Float[np.ndarray, "17"]
    made: str
    remark: str = ""

    @classmethod
    def zero(cls, detector: str, *, made: str = "", remark: str = "") -> LandmarkTable:
        """Returns a table without offsets."""
        return cls(detector, np.zeros((51, 3)), np.zeros(17), made, remark)


def load_table(detector: str, *, head: str = "builtin") -> LandmarkTable:
    """Returns the table of a detector.

    Args:
      detector: One of `TABLE_NAMES`.
      head: `HeadAssets.source`; tables were measured on the built-in head, another head gets offsets of 0.

    Raises:
      InputError: No such detector, or its table is damaged.
    """
    if detector not in TABLE_NAMES:
        raise InputError(f"landmark table {detector!r}: expected one of {', '.join(TABLE_NAMES)}")
    if head != "builtin":
        remark = f"no table for {detector} on a {head} head yet: shape and expression carry the detector's bias"
        return LandmarkTable.zero(detector, remark=remark)
    if detector == "synthetic":
        return LandmarkTable.zero(detector, made="the built-in head's own landmarks, exact")
    measured = _SAME_ANNOTATION.get(detector, detector)
    table = read_table(_FOLDER / f"{measured}.json")
    if measured == detector:
        return table
    remark = f"{detector} was not measured itself: it has the table of {measured}, trained on the same annotation"
    return dataclasses.replace(table, detector=detector, remark=remark)


def read_table(path: Path) -> LandmarkTable:
    """Returns a table from its file.

    Raises:
      InputError: Not a landmark table.
    """
    try:
        content = json.loads(path.read_text())
        offsets, insets = np.array(content["offsets_m"], float), np.array(content["insets_m"], float)
        if offsets.shape != (51, 3) or insets.shape != (17,) or not np.isfinite(offsets).all():
            raise ValueError(f"shapes {offsets.shape} and {insets.shape}, expected (51, 3) and (17,)")
        return LandmarkTable(content["detector"], offsets, insets, content["made"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a landmark table ({error}); `calibrate` writes one") from error


def save_table(table: LandmarkTable, path: Path) -> None:
    """Writes a table as JSON, micrometres kept."""
    content = {
        "detector": table.detector,
        "made": table.made,
        "offsets_m": np.round(table.offsets_m, 6).tolist(),
        "insets_m": np.round(table.insets_m, 6).tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")
