"""Published figures to stand beside one's own, and why they may not be comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError

__all__ = [
    "CROSS_DRIVERS",
    "MEAD_SPEAKERS",
    "PUBLISHED",
    "DrivenClip",
    "MapCheck",
    "MapPair",
    "PublishedRow",
    "PublishedSetting",
    "Setting",
    "SourceClip",
    "caveats",
    "check_map",
    "driver_of",
    "map_pairs",
]

# Who drives whom in the published tables: the Intra-ID and Cross-ID maps, and whether clips cover them.

Setting = Literal["intra", "cross"]

MEAD_SPEAKERS = ("M003", "M009", "W029", "M012", "M030", "W015")

CROSS_DRIVERS: Mapping[str, str] = MappingProxyType(
    {
        **{"M003": "W015", "M009": "M003", "W029": "M009", "M012": "W029", "M030": "M012", "W015": "M030"},
        **{f"Actor_{number:02d}": f"Actor_{(number - 2) % 6 + 1:02d}" for number in range(1, 7)},
    }
)
"""Target speaker -> the speaker whose expression it is given: of MEAD, and of RAVDESS's first six actors."""

_NEUTRAL = EMOTIONS[0]


class SourceClip(NamedTuple):
    """A clip of a data set: its id, who speaks, in which emotion."""

    clip: str
    speaker: str
    emotion: str


class MapPair(NamedTuple):
    """A source clip and the reference that belongs to it: any clip of a speaker in an emotion."""

    source: str
    speaker: str
    driver: str
    emotion: str


class DrivenClip(NamedTuple):
    """A manipulated clip: its id, its speaker and emotion, its source's id and its driver; nothing where unknown."""

    clip: str
    speaker: str
    emotion: str
    source: str
    driver: str


@dataclasses.dataclass(frozen=True)
class MapCheck:
    """How manipulated clips stand to a map.

    Attributes:
      setting: Which map.
      wanted: Pairs of the map.
      covered: Of those, the ones that have a clip.
      missing: The others.
      foreign: Clips that belong to no pair, and why.
      unstated: Clips whose driver is not told, so that the speaker's one was taken on trust.
    """

    setting: Setting
    wanted: int
    covered: int
    missing: tuple[MapPair, ...]
    foreign: tuple[tuple[str, str], ...]
    unstated: int

    @property
    def complete(self) -> bool:
        """Whether every pair has a clip and every clip a pair."""
        return not self.missing and not self.foreign


def driver_of(speaker: str, setting: Setting) -> str | None:
    """Returns who drives a speaker, or None where the map does not have the speaker.

    >>> driver_of("M003", "cross"), driver_of("Actor_01", "cross"), driver_of("Ann", "intra"), driver_of("Ann", "cross")
    ('W015', 'Actor_06', 'Ann', None)
    """
    return speaker if setting == "intra" else CROSS_DRIVERS.get(speaker)


def map_pairs(sources: Sequence[SourceClip], setting: Setting) -> tuple[MapPair, ...]:
    """Returns the pairs of source clip and driving speaker that a setting asks of a data set, in the sources' order.

    Intra-ID: every clip is driven by its own speaker in its own emotion. Cross-ID: every neutral clip of a speaker in
    the map is driven by that speaker's driver, in each of the seven emotions.

    >>> map_pairs([SourceClip("a", "M003", "neutral"), SourceClip("b", "M003", "sad")], "cross")[1]
    MapPair(source='a', speaker='M003', driver='W015', emotion='angry')

    Args:
      sources: Clips of the data set.
      setting: Which map.

    Raises:
      InputError: Not one of the clips belongs to the map.
    """
    pairs = []
    for clip, speaker, emotion in sources:
        driver = driver_of(speaker, setting)
        if driver is None:
            continue
        if setting == "intra":
            pairs.append(MapPair(clip, speaker, driver, emotion))
        elif emotion == _NEUTRAL:
            pairs += [MapPair(clip, speaker, driver, asked) for asked in EMOTIONS]
    if not pairs:
        found = ", ".join(sorted({speaker for _, speaker, _ in sources})[:8]) or "none"
        raise InputError(
            f"--map {setting}: no clip of --source belongs to the map; the cross-ID map has neutral clips of"
            f" {', '.join(CROSS_DRIVERS)}, the source has speakers {found}"
        )
    return tuple(pairs)


def check_map(pairs: Sequence[MapPair], clips: Sequence[DrivenClip], setting: Setting) -> MapCheck:
    """Returns which pairs the clips cover, and which clips belong to none."""
    wanted = {(pair.source, pair.emotion): pair for pair in pairs}
    covered, foreign, unstated = set(), [], 0
    for clip in clips:
        pair = wanted.get((clip.source, clip.emotion))
        if pair is None:
            reason = "no known source" if not clip.source else f"{clip.source} as {clip.emotion} is not in the map"
            foreign.append((clip.clip, reason))
        elif clip.driver and clip.driver != pair.driver:
            foreign.append((clip.clip, f"driven by {clip.driver}, the map says {pair.driver}"))
        else:
            covered.add((clip.source, clip.emotion))
            unstated += not clip.driver
    missing = tuple(pair for key, pair in wanted.items() if key not in covered)
    return MapCheck(setting, len(wanted), len(covered), missing, tuple(foreign), unstated)


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
