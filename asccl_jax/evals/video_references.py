"""Published figures to stand beside one's own, and why they may not be comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.evals.video_driver_maps import MEAD_SPEAKERS

__all__ = ["PUBLISHED", "PublishedRow", "PublishedSetting", "caveats"]


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """A method's averages over seven emotions.

    Attributes:
      method: Its name.
      fad: FAD on ResNetFace-18 features.
      lse_d: LSE-D in the 30 fps form.
      csim: The papers' CSIM, which is an expression similarity.
      where: Where the figures stand.
    """

    method: str
    fad: float
    lse_d: float
    csim: float
    where: str


@dataclasses.dataclass(frozen=True)
class PublishedSetting:
    """The rows of one table: which data, and whose expression drives."""

    data: str
    setting: str
    rows: tuple[PublishedRow, ...]


_TABLE = "STCCL's table"
_NOTES = "comments in CDRL's scripts, working notes"

PUBLISHED = (
    PublishedSetting(
        "MEAD",
        "intra",
        (
            PublishedRow("ICface", 6.795, 10.083, 0.775, f"{_TABLE}; the column of its FAD averages to 6.652"),
            PublishedRow("ICface + STCCL-VD", 6.634, 9.411, 0.806, _TABLE),
            PublishedRow("ICface + STCCL-CM", 6.651, 9.412, 0.810, _TABLE),
            PublishedRow("NED", 2.108, 9.454, 0.831, _TABLE),
            PublishedRow("NED + STCCL-VD", 1.077, 9.359, 0.914, _TABLE),
            PublishedRow("NED + STCCL-CM", 1.103, 9.330, 0.916, _TABLE),
            PublishedRow("NED + CDRL", 1.025, 9.377, 0.914, _NOTES),
        ),
    ),
    PublishedSetting(
        "MEAD",
        "cross",
        (
            PublishedRow("ICface", 9.540, 11.238, 0.688, f"{_TABLE}; the column of its LSE-D averages to 11.095"),
            PublishedRow("ICface + STCCL-VD", 9.445, 10.311, 0.730, _TABLE),
            PublishedRow("ICface + STCCL-CM", 9.460, 10.312, 0.732, _TABLE),
            PublishedRow("NED", 4.448, 9.906, 0.773, _TABLE),
            PublishedRow("NED + STCCL-VD", 4.169, 9.216, 0.795, _TABLE),
            PublishedRow("NED + STCCL-CM", 4.253, 9.225, 0.799, _TABLE),
            PublishedRow("NED + CDRL", 4.344, 9.351, 0.792, _NOTES),
        ),
    ),
    PublishedSetting(
        "RAVDESS",
        "intra",
        (
            PublishedRow("ICface", 8.443, 8.480, 0.755, _TABLE),
            PublishedRow("ICface + STCCL-VD", 7.289, 8.027, 0.772, _TABLE),
            PublishedRow("ICface + STCCL-CM", 7.294, 8.027, 0.775, _TABLE),
            PublishedRow("NED", 3.057, 7.562, 0.825, _TABLE),
            PublishedRow("NED + STCCL-VD", 2.938, 7.404, 0.835, _TABLE),
            PublishedRow("NED + STCCL-CM", 2.996, 7.404, 0.839, _TABLE),
        ),
    ),
    PublishedSetting(
        "RAVDESS",
        "cross",
        (
            PublishedRow("ICface", 9.424, 11.539, 0.677, _TABLE),
            PublishedRow("ICface + STCCL-VD", 8.900, 10.315, 0.687, _TABLE),
            PublishedRow("ICface + STCCL-CM", 8.902, 10.312, 0.691, _TABLE),
            PublishedRow("NED", 5.412, 8.034, 0.760, _TABLE),
            PublishedRow("NED + STCCL-VD", 4.774, 7.803, 0.767, _TABLE),
            PublishedRow("NED + STCCL-CM", 4.794, 7.804, 0.772, _TABLE),
        ),
    ),
)
"""Averages, with the figures that do not match their own columns marked. ASCCL's own table is not known here."""


def caveats(
    speakers: Sequence[str],
    emotions: Sequence[str],
    *,
    covered: bool | None,
    networks: Sequence[str],
    mixed_sizes: bool,
) -> tuple[str, ...]:
    """Returns what keeps an evaluation's figures from being comparable with the published ones; empty if nothing does.

    Args:
      speakers: Speakers of the manipulated clips.
      emotions: Emotions asked for.
      covered: Whether the clips are those of a driver map; None if that was not checked.
      networks: Networks that were given.
      mixed_sizes: Whether some frames are not 256 pixels wide and high, as the papers' face crops are.
    """
    found = []
    if missing := sorted(set(MEAD_SPEAKERS) - set(speakers)):
        found.append(f"not MEAD's six test speakers (without {', '.join(missing)})")
    if missing := [emotion for emotion in EMOTIONS if emotion not in emotions]:
        found.append(f"not all seven emotions (without {', '.join(missing)})")
    if covered is None:
        found.append("the clips were not checked against a driver map (--map intra or --map cross)")
    elif not covered:
        found.append("the clips are not those of the driver map, see below")
    if mixed_sizes:
        found.append("frames other than the 256 x 256 face crops that the papers score")
    if missing := [name for name in ("resnet-face", "efficient-face", "syncnet") if name not in networks]:
        found.append(f"without the networks {', '.join(missing)}")
    return tuple(found)
