"""Who drives whom in the published tables: the Intra-ID and Cross-ID maps, and whether clips cover them."""

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
    "DrivenClip",
    "MapCheck",
    "MapPair",
    "Setting",
    "SourceClip",
    "check_map",
    "driver_of",
    "map_pairs",
]

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
