"""What a person asks of a preparation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from asccl_jax.errors import InputError
from asccl_jax.paths import readable
from data_prep.prepare.alignment import AlignmentSettings
from data_prep.prepare.clip_records import ClipSettings

__all__ = ["Preparation", "RunnerSettings"]


@dataclasses.dataclass(frozen=True)
class RunnerSettings:
    """Where and how wide the tasks run.

    Attributes:
      workers: Processes of the local runner.
      runner: A Beam runner by name, or "local".
      beam_options: Further options of Beam, as on a command line.
    """

    workers: int = 1
    runner: str = "local"
    beam_options: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """One data set to be made.

    Attributes:
      source: Folder of the videos, or the CSV file of layout "list".
      layout: One of `layouts.LAYOUTS`.
      output: Directory of the data set.
      name: What to call it; empty takes the source's name.
      clips: How every clip is prepared.
      alignment: What an aligned path may do.
      max_cost: Greatest mean cost of a pair, above which the clips hardly say the same words; None keeps all.
      keep_costly: Whether pairs stay whose cost stands out from that of the others.
      levels: MEAD's emotion intensities.
      transcripts: CSV of what each clip says, or None.
      pairs_from: List of aligned pairs to use instead of the sound, or None.
      pairs_to: Where to write the aligned pairs as such a list, or None.
      validation_speakers: Speakers held out; empty takes the default of `splits.assign_splits`.
      test_speakers: Speakers kept to report on; None takes the default of the layout.
      shard_bytes: Size beyond which a shard takes no further clip.
      runner: Where the work is done.
      keep_work: Whether the work folder stays once all is done.
    """

    source: Path
    layout: str
    output: Path
    name: str = ""
    clips: ClipSettings = dataclasses.field(default_factory=ClipSettings)
    alignment: AlignmentSettings = dataclasses.field(default_factory=AlignmentSettings)
    max_cost: float | None = None
    keep_costly: bool = False
    levels: tuple[int, ...] = (3,)
    transcripts: Path | None = None
    pairs_from: Path | None = None
    pairs_to: Path | None = None
    validation_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...] | None = None
    shard_bytes: int = 128_000_000
    runner: RunnerSettings = dataclasses.field(default_factory=RunnerSettings)
    keep_work: bool = False

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        if not self.levels or not set(self.levels) <= {1, 2, 3}:
            raise InputError(f"--levels {','.join(map(str, self.levels))}: expected some of 1, 2, 3")
        if self.shard_bytes < 1:
            raise InputError("the size of a shard must be positive")
        if self.runner.workers < 1:
            raise InputError(f"--workers {self.runner.workers}: expected at least 1")

    @property
    def title(self) -> str:
        """Name of the data set."""
        return readable(self.name or self.source.resolve().stem)

    def described(self) -> dict[str, Any]:
        """Returns what the records depend on, for the manifest: no paths, so that equal runs describe equally."""
        clips = dataclasses.asdict(self.clips)
        clips["landmarks"] = self.clips.landmarks.backend
        return {
            "layout": self.layout,
            "clips": clips,
            "alignment": {
                **dataclasses.asdict(self.alignment),
                "max_cost": self.max_cost,
                "keep_costly": self.keep_costly,
            },
            "pairs": "by sound" if self.pairs_from is None else f"from {self.pairs_from.name}",
        }
