"""Clips of one performance in two emotions, frame by frame: what a perfect manipulation of one must look like."""

from __future__ import annotations

import dataclasses
from pathlib import PurePosixPath

from asccl_jax.data.manifest import Manifest

__all__ = ["Twin", "find_twins"]


@dataclasses.dataclass(frozen=True)
class Twin:
    """A neutral clip, and the same words said by the same person in the same time with an emotion.

    Attributes:
      source: Id of the neutral clip.
      target: Id of the emotional one.
      speaker: Who speaks.
      emotion: Of the target.
      sentence: What is said.
    """

    source: str
    target: str
    speaker: str
    emotion: str
    sentence: str

    @property
    def folder(self) -> PurePosixPath:
        """Where the conditioning of the source with the target's expression is kept, within a folder of edits."""
        return PurePosixPath(self.speaker, self.emotion, self.sentence)


def find_twins(manifest: Manifest, split: str = "validation") -> tuple[Twin, ...]:
    """Returns the pairs of a split whose lists of frames are equal, by speaker, sentence and emotion.

    Only `asccl synthesise actors` makes clips that are equal in speech, pose and blinks; of others, equal numbers of
    frames would be chance.

    Args:
      manifest: Data set.
      split: Its split.
    """
    clips = {name: clip for name, clip in manifest.clips.items() if clip.split == split}
    neutral = {
        (clip.speaker, clip.sentence, clip.frames): name for name, clip in clips.items() if clip.emotion == "neutral"
    }
    found = []
    for name, clip in sorted(clips.items(), key=lambda item: (item[1].speaker, item[1].sentence, item[1].emotion)):
        source = neutral.get((clip.speaker, clip.sentence, clip.frames))
        if source is not None and clip.emotion != "neutral":
            found.append(Twin(source, name, clip.speaker, clip.emotion, clip.sentence))
    return tuple(found)
