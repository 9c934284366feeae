"""The list of a directory of tracks: which clips it holds, who speaks in them and how, without any picture.

DIR/tracks.json is the list, DIR/codes/NAME.npz the code dict of a clip, NAME being its `clip_file_name`: where
`asccl reconstruct` puts the code dicts of a data set, whose manifest takes the place of the list.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, no_type_check

from asccl_jax.data.atomic import write_atomically
from asccl_jax.data.manifest import MANIFEST_NAME, Manifest
from asccl_jax.data.schema import EMOTIONS, UNLABELLED
from asccl_jax.errors import InputError
from asccl_jax.file_names import cut_name, name_hash

__all__ = [
    "LIST_NAME",
    "TrackEntry",
    "TrackList",
    "clip_file_name",
    "codes_path",
    "read_track_list",
    "write_track_list",
]

LIST_NAME = "tracks.json"

_FORMAT = "asccl-tracks-1"
_NAME_CHARACTERS, _NAME_BYTES = 80, 190
"""Of the readable part of a clip's file name; hash and endings come to it, and file systems hold 255 bytes."""
_MAKE = "make tracks with `asccl reconstruct`, `asccl import-tracks` or `asccl synthesise tracks`"


def clip_file_name(clip: str) -> str:
    """Returns a clip's id as one harmless file name, unlike that of any other clip."""
    harmless = re.sub(r"[^\w.-]", "_", clip.replace("/", "_"))[:_NAME_CHARACTERS]
    return f"{cut_name(harmless, _NAME_BYTES)}-{name_hash(clip)[:12]}"


def codes_path(directory: Path, clip: str) -> Path:
    """Returns where the code dict of a clip lies."""
    return directory / "codes" / f"{clip_file_name(clip)}.npz"


@no_type_check  # checks itself, with words a user understands
@dataclasses.dataclass(frozen=True)
class TrackEntry:
    """What is known of one clip besides its code dict.

    Attributes:
      speaker: Whose face.
      emotion: One of `schema.EMOTIONS`, or `schema.UNLABELLED`; of a clip in several, the most frequent.
      sentence: What is said.
      split: "train", "validation" or "test".
      frames: Frames of the code dict.
      frame_emotions: Emotion of each frame as runs of (emotion, number of frames); empty where it is `emotion` in all.
    """

    speaker: str
    emotion: str
    sentence: str
    split: str
    frames: int
    frame_emotions: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        emotions = {self.emotion, *(emotion for emotion, _ in self.frame_emotions)}
        unknown = sorted(emotions - {*EMOTIONS, UNLABELLED})
        if unknown:
            raise InputError(f"emotion {unknown[0]!r}, expected one of {', '.join((*EMOTIONS, UNLABELLED))}")
        if not isinstance(self.frames, int) or self.frames < 0:
            raise InputError(f"{self.frames!r} frames, expected a count")
        counts = [count for _, count in self.frame_emotions]
        if counts and (min(counts) < 1 or sum(counts) != self.frames):
            raise InputError(f"emotions of {sum(counts)} frames for {self.frames} frames")


@dataclasses.dataclass(frozen=True)
class TrackList:
    """What a directory of tracks holds.

    Attributes:
      name: What the person called it.
      clips: Every clip by its id.
      settings: How the tracks were made; for people and reports.
    """

    name: str
    clips: Mapping[str, TrackEntry]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write_track_list(directory: Path, tracks: TrackList) -> None:
    """Writes a list of tracks, whole or not at all: the last file of a directory of tracks."""
    content = {"format": _FORMAT, **dataclasses.asdict(tracks)}
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomically(directory / LIST_NAME, text + "\n")


def read_track_list(directory: Path | str) -> TrackList:
    """Returns what a directory of tracks holds, be it one with a list or the output of `asccl reconstruct`.

    Raises:
      InputError: No such directory, neither list nor manifest in it, or one that makes no sense.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"directory of tracks {directory} does not exist; {_MAKE}")
    path, manifest = directory / LIST_NAME, directory / MANIFEST_NAME
    if not path.is_file() and not manifest.is_file():
        raise InputError(f"{directory} has neither {LIST_NAME} nor {MANIFEST_NAME}: no finished tracks; {_MAKE}")
    if not (directory / "codes").is_dir():
        raise InputError(f"{directory} has no codes/: its clips were never reconstructed; {_MAKE}")
    if not path.is_file():
        return _from_manifest(manifest)
    try:
        return _from_json(path.read_text(encoding="utf-8"))
    except (InputError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: {error}") from error


def _from_json(text: str) -> TrackList:
    try:
        fields = json.loads(text)
        found = fields.pop("format", "none")
        if found != _FORMAT:
            raise InputError(f"format {found!r}, expected {_FORMAT!r}; make the tracks again")
        clips = {name: _entry(name, entry) for name, entry in fields.pop("clips").items()}
        return TrackList(clips=clips, **fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"no valid list of tracks ({type(error).__name__}: {error}); make the tracks again") from error


def _entry(clip: str, fields: Mapping[str, Any]) -> TrackEntry:
    runs = tuple((str(emotion), int(count)) for emotion, count in fields["frame_emotions"])
    try:
        return TrackEntry(**{**fields, "frame_emotions": runs})
    except InputError as error:
        raise InputError(f"clip {clip!r}: {error}") from error


def _from_manifest(path: Path) -> TrackList:
    """The clips of a data set, whose shards need not be there; its single-frame comparisons are no clips."""
    try:
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    except (InputError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: {error}") from error
    clips = {
        name: TrackEntry(clip.speaker, clip.emotion, clip.sentence, clip.split, clip.frame_count)
        for name, clip in manifest.clips.items()
        if clip.split != "comparisons"
    }
    return TrackList(manifest.name, clips, manifest.settings)
