"""Coefficient tracks: how a face moves in one clip, as the manipulator sees it, and how it would in another emotion."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS, UNLABELLED
from asccl_jax.data.track_list import TrackEntry, clip_file_name, codes_path, read_track_list
from asccl_jax.errors import InputError

__all__ = [
    "COEFFICIENTS",
    "NO_LABEL",
    "TYPICAL_INTENSITY",
    "CoefficientTrack",
    "TrueDelivery",
    "coefficients_of",
    "has_truth",
    "read_tracks",
    "read_truth",
    "template_frame",
    "truth_path",
]

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

    The directory is the output of `asccl reconstruct` (of which the manifest, `codes/` and `tracks/` are read), of
    `asccl import-tracks`, or of `asccl synthesise tracks`. Frames that a reconstruction had to interpolate, as it found
    no face, are left out.

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
      directory: Made by `asccl synthesise tracks`.
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
            f"{directory}: no truth of held-out neutral clips; only tracks of `asccl synthesise tracks` have it"
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
