"""What the steps of one evaluation share: networks, sources of landmarks, stored results, a few threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from data_prep.evaluate.landmark_sources import LandmarkFinder, MouthProbe
from data_prep.evaluate.matching import sound_shift
from data_prep.evaluate.score_cache import Fingerprints, ScoreCache, digest
from data_prep.evaluate.video_features import FaceNetworks, VideoFeatures, read_features
from data_prep.evaluate.video_metrics import Refusal
from data_prep.evaluate.video_references import Setting
from data_prep.media.clips import Clip
from data_prep.media.decode import BrokenMediaError, Sound, read_sound

__all__ = ["EvaluationSettings", "Run"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What is asked for beside the clips.

    Attributes:
      setting: Driver map to check the clips against, or None.
      limit: Most clips of each side.
      allow_lengths: Score the common part of clips of different lengths.
      crop: Show networks the face, cut out by its landmarks.
      threads: Clips worked on at a time.
    """

    setting: Setting | None = None
    limit: int | None = None
    allow_lengths: bool = False
    crop: bool = False
    threads: int = 1


class Run:
    """One evaluation: what its steps share.

    Args:
      networks: What judges faces.
      finder: Where landmarks come from.
      cache: Where results are kept.
      fingerprints: Of files.
      settings: What is asked for.
      advance: Called after each clip.
    """

    def __init__(
        self,
        networks: FaceNetworks,
        finder: LandmarkFinder,
        cache: ScoreCache,
        fingerprints: Fingerprints,
        settings: EvaluationSettings,
        advance: Callable[[], object],
    ) -> None:
        self.networks, self.finder, self.cache = networks, finder, cache
        self.fingerprints, self.settings, self.advance = fingerprints, settings, advance
        self.refused: list[Refusal] = []

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results in the order of the items, whatever order they were worked on in."""
        with ThreadPoolExecutor(max_workers=self.settings.threads) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                results = []
                for future in futures:
                    results.append(future.result())
                    self.advance()
                return results
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def features(
        self, clip: Clip, probe: MouthProbe | None = None, source: VideoFeatures | None = None
    ) -> VideoFeatures | str:
        """What a video shows, or why it cannot be read."""
        try:
            known = None if source is None else (source.landmarks, source.clock)
            marks = self.finder.choose(clip, probe=probe, source=known)
            key = self.fingerprints.of(clip.video)
            return read_features(clip, key, marks, self.networks.parts, self.cache, crop=self.settings.crop)
        except BrokenMediaError as error:
            return str(error)

    def sound(self, clip: Clip, other: Clip | None) -> tuple[Sound, str, str] | None:
        """A clip's sound or else that of its source; its fingerprint; whose it is. None if both are silent."""
        for one, whose in ((clip, "own"), (other, "source")):
            if one is not None:
                path = one.audio or one.video
                if path.is_file():
                    try:
                        return read_sound(path), self.fingerprints.of(path), whose
                    except BrokenMediaError:
                        continue
        return None

    def sound_shift(self, clip: Clip, source: Clip) -> float:
        """By how many seconds sound comes later in a clip than in its source, each from its first picture on.

        Where it is not the same sound, what the files say of its start counts; 0 where either has none.
        """
        sounds = [self.sound(one, None) for one in (source, clip)]
        if sounds[0] is None or sounds[1] is None:
            return 0.0
        key = digest(*(one[1] for one in sounds if one is not None))
        stored = self.cache.find("sound-shift", key)
        if stored is None:
            shift = sound_shift(sounds[0][0], sounds[1][0])
            stored = {"shift_s": np.array(sounds[1][0].start_s - sounds[0][0].start_s if shift is None else shift)}
            self.cache.store("sound-shift", key, stored)
        return float(stored["shift_s"])
