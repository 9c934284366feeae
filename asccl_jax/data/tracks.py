"""Coefficient tracks: how a face moves in one clip, as the manipulator sees it, and how it would in another emotion."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.manifest import MANIFEST_NAME, Manifest
from asccl_jax.data.schema import EMOTIONS, UNLABELLED
from asccl_jax.errors import InputError
from asccl_jax.paths import cut_name, name_hash
from asccl_jax.work import write_atomically

__all__ = [
    "COEFFICIENTS",
    "LIST_NAME",
    "NO_LABEL",
    "TYPICAL_INTENSITY",
    "CoefficientTrack",
    "TrackEntry",
    "TrackList",
    "TrueDelivery",
    "clip_file_name",
    "codes_path",
    "coefficients_of",
    "has_truth",
    "read_track_list",
    "read_tracks",
    "read_truth",
    "template_frame",
    "truth_path",
    "write_track_list",
]

# The list of a directory of tracks: which clips it holds, who speaks in them and how, without any picture.
#
# DIR/tracks.json is the list, DIR/codes/NAME.npz the code dict of a clip, NAME being its `clip_file_name`: where
# `asccl data reconstruct` puts the code dicts of a data set, whose manifest takes the place of the list.

LIST_NAME = "tracks.json"

_FORMAT = "asccl-tracks-1"
_NAME_CHARACTERS, _NAME_BYTES = 80, 190
"""Of the readable part of a clip's file name; hash and endings come to it, and file systems hold 255 bytes."""
_MAKE = "make tracks with `asccl data reconstruct`, `asccl data import-tracks` or `asccl data synthesise tracks`"


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
    """Returns what a directory of tracks holds, be it one with a list or the output of `asccl data reconstruct`.

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


COEFFICIENTS = 51
"""The jaw's opening and DECA's 50 expression coefficients."""

NO_LABEL = -1
"""Label of a frame whose emotion nobody has told."""

TYPICAL_INTENSITY = 0.85
"""Mean strength at which synthetic speakers act their emotions, 0.6 to 1.1 of full."""

_INVENTED = 1 | 8
"""Flags of a reconstruction: no face was found, the picture could not be read (see `schema.RenderRecord`)."""


@dataclasses.dataclass(frozen=True, eq=False)
class CoefficientTrack:
    """A clip as a sequence of facial coefficients.

    Attributes:
      clip: Id of the clip.
      speaker: Whose face.
      emotion: One of `schema.EMOTIONS`, or `schema.UNLABELLED`; of a clip in several, the most frequent.
      sentence: What is said.
      split: "train", "validation" or "test".
      coefficients: Column 0 is the jaw's opening in radians, 1..50 the expression.
      frame_index: Position of each frame in the source video, rising; missing frames leave gaps.
      labels: Emotion of each frame, a position in `schema.EMOTIONS`, or `NO_LABEL`.
    """

    clip: str
    speaker: str
    emotion: str
    sentence: str
    split: str
    coefficients: Float32[np.ndarray, "n 51"]
    frame_index: Int[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.frame_index)


@dataclasses.dataclass(frozen=True, eq=False)
class TrueDelivery:
    """A neutral clip of a synthetic speaker and what the same delivery is in every emotion.

    Attributes:
      clip: Id of the neutral clip.
      speaker: Whose face.
      codes: Its code dict.
      source: Its coefficients.
      truth: Coefficients by emotion, with the source's speech, timing, blinks and pose; `source` for "neutral".
    """

    clip: str
    speaker: str
    codes: CodeDict
    source: Float32[np.ndarray, "n 51"]
    truth: Mapping[str, Float32[np.ndarray, "n 51"]]


def coefficients_of(codes: CodeDict) -> Float32[np.ndarray, "n 51"]:
    """Returns what the manipulator edits of a code dict; `CodeDict.edited` takes it back.

    Raises:
      InputError: The head has another number of expression coefficients than DECA's.
    """
    if codes.exp.shape[1] != COEFFICIENTS - 1:
        raise InputError(f"{codes.exp.shape[1]} expression coefficients, expected DECA's {COEFFICIENTS - 1}")
    return np.concatenate([codes.pose[:, 3:4], codes.exp], axis=1).astype(np.float32)


def read_tracks(directory: Path | str, *, split: str | None = None) -> list[CoefficientTrack]:
    """Returns the tracks of a directory, in the order of their ids.

    The directory is the output of `asccl data reconstruct` (of which the manifest, `codes/` and `tracks/` are read), of
    `asccl data import-tracks`, or of `asccl data synthesise tracks`. Frames that a reconstruction had to interpolate,
    as it found no face, are left out.

    Args:
      directory: Where the tracks are.
      split: Which clips; None for all.

    Raises:
      InputError: There are no tracks, or those of a clip are missing, damaged, or of another size than listed.
    """
    directory = Path(directory)
    return [
        _read_track(directory, clip, entry)
        for clip, entry in sorted(read_track_list(directory).clips.items())
        if split in (None, entry.split)
    ]


def template_frame(directory: Path | str, tracks: Iterable[CoefficientTrack]) -> CodeDict:
    """Returns the code dict of one frame whose identity, pose and camera stand for all: of a neutral clip, if possible.

    It is the first frame without any flag, of the first neutral clip by id that has one, else of the first other clip.

    Args:
      directory: Where the tracks are.
      tracks: Tracks to choose from.

    Raises:
      InputError: Every frame is flagged, or a file is missing or damaged.
    """
    directory = Path(directory)
    clips = [track.clip for track in sorted(tracks, key=lambda track: (track.emotion != "neutral", track.clip))]
    for clip in clips:
        codes, _ = _read_codes(codes_path(directory, clip), clip)
        trusted = np.flatnonzero(_flags(directory, clip, len(codes)) == 0)
        if trusted.size:
            return codes[int(trusted[0]) : int(trusted[0]) + 1]
    raise InputError(
        f"{directory}: every frame of {len(clips)} clips to train on is flagged, so none can be the template of the"
        " meshes; name one with config.mesh.template"
    )


def truth_path(directory: Path, clip: str, emotion: str) -> Path:
    """Returns where the code dict lies that a neutral clip would have in another emotion."""
    return directory / "truth" / emotion / f"{clip_file_name(clip)}.npz"


def has_truth(directory: Path | str) -> bool:
    """Returns whether tracks come with a truth, as those of synthetic speakers do."""
    return (Path(directory) / "truth").is_dir()


def read_truth(directory: Path | str, *, intensity: float = TYPICAL_INTENSITY) -> list[TrueDelivery]:
    """Returns the held-out neutral clips of a directory of synthetic tracks with their truth, in the order of ids.

    Args:
      directory: Made by `asccl data synthesise tracks`.
      intensity: Strength of the emotion; by default the mean of what the tracks to train on hold, as an emotion's
        label says nothing of strength. Coefficients of a delivery depend on it linearly, so that those stored, of
        intensity 1, give any other exactly.

    Raises:
      InputError: There is no truth, or it is not that of its clips.
    """
    directory = Path(directory)
    clips = [
        (clip, entry)
        for clip, entry in sorted(read_track_list(directory).clips.items())
        if entry.split == "validation" and entry.emotion == "neutral"
    ]
    if not has_truth(directory) or not clips:
        raise InputError(
            f"{directory}: no truth of held-out neutral clips; only tracks of `asccl data synthesise tracks` have it"
        )
    return [_read_delivery(directory, clip, entry.speaker, intensity) for clip, entry in clips]


def _read_track(directory: Path, clip: str, entry: TrackEntry) -> CoefficientTrack:
    codes, coefficients = _read_codes(codes_path(directory, clip), clip)
    if len(codes) != entry.frames:
        raise InputError(
            f"clip {clip!r}: codes of {len(codes)} frames, the list says {entry.frames}: files of two runs"
        )
    runs = entry.frame_emotions or ((entry.emotion, entry.frames),)
    labels = np.repeat([_label(emotion) for emotion, _ in runs], [count for _, count in runs]).astype(np.int32)
    kept = (_flags(directory, clip, len(codes)) & _INVENTED) == 0
    return CoefficientTrack(
        clip=clip,
        speaker=entry.speaker,
        emotion=entry.emotion,
        sentence=entry.sentence,
        split=entry.split,
        coefficients=coefficients[kept],
        frame_index=codes.frame_index[kept],
        labels=labels[kept],
    )


def _label(emotion: str) -> int:
    return NO_LABEL if emotion == UNLABELLED else EMOTIONS.index(emotion)


def _read_codes(path: Path, clip: str) -> tuple[CodeDict, Float32[np.ndarray, "n 51"]]:
    try:
        codes = CodeDict.load(path)
        return codes, coefficients_of(codes)
    except InputError as error:
        raise InputError(f"clip {clip!r}: {error}") from error


def _flags(directory: Path, clip: str, frames: int) -> Int64[np.ndarray, " n"]:
    """What the reconstruction says of each frame; nothing where the tracks come from elsewhere."""
    path = directory / "tracks" / f"{clip_file_name(clip)}.npz"
    if not path.is_file():
        return np.zeros(frames, np.int64)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            flags = np.asarray(archive["flags"])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"clip {clip!r}: {path}: damaged ({error}); reconstruct it again") from error
    if flags.shape != (frames,):
        raise InputError(
            f"clip {clip!r}: {path} has flags of shape {flags.shape} for {frames} frames: files of two runs"
        )
    return flags.astype(np.int64)


def _read_delivery(directory: Path, clip: str, speaker: str, intensity: float) -> TrueDelivery:
    codes, source = _read_codes(codes_path(directory, clip), clip)
    truth = {"neutral": source}
    for emotion in EMOTIONS[1:]:
        other, coefficients = _read_codes(truth_path(directory, clip, emotion), clip)
        if not np.array_equal(other.frame_index, codes.frame_index):
            raise InputError(f"clip {clip!r}: its truth for {emotion!r} is of other frames; make the tracks again")
        truth[emotion] = source + np.float32(intensity) * (coefficients - source)
    return TrueDelivery(clip, speaker, codes, source, truth)
