"""Published coefficient files as tracks of the manipulator: `asccl data import-tracks`."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS, UNLABELLED
from asccl_jax.data.test_speakers import TEST_SPEAKERS
from asccl_jax.data.tracks import LIST_NAME, TrackEntry, TrackList, codes_path, write_track_list
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.paths import id_part, is_litter, name_hash, readable
from asccl_jax.process import command_name
from asccl_jax.work import sole_writer
from data_prep.head_fit.published_codes import read_published_codes
from data_prep.head_fit.safe_pickle import load_pickle
from data_prep.media.clips import Problem, emotion_name

__all__ = [
    "ImportedClip",
    "find_clips",
    "hold_out",
    "import_tracks",
    "main",
    "read_actor_file",
    "read_annotations",
    "read_video",
]

# The layouts of other projects' coefficient files, read as clips; nothing that a pickle names is run.
#
# * `ACTOR_deca.pkl`, MEAD as NED's reconstruction leaves it: a list with a pair for each clip, an array (frames, 53)
# of
# the jaw's rotation (3) and the expression (50), and the emotion. Identity, head pose and camera are not in it: clips
# get the mean head, looking straight.
# * Aff-Wild2: code dicts in `DECA/VIDEO/%06d.pkl`, `VIDEO/DECA/%06d.pkl` or `VIDEO/%06d.pkl`, numbered from 0 as the
# frames of the video, and annotations in `VIDEO.txt`: a line of names, then one label a frame, -1 for none.

_ACTOR_ENDING = "_deca.pkl"
_JAW, _EXPRESSION, _SHAPE = 3, 50, 100
_FRONTAL_CAMERA = (8.0, 0.0, 0.0)
"""Scale, tx, ty with which the mean head fills DECA's crop about as faces do."""

_LABELS = {str(label) for label in range(-1, len(EMOTIONS))}


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedClip:
    """One clip of another project's files.

    Attributes:
      clip: Id of the clip.
      speaker: Whose face; of Aff-Wild2, the video.
      emotion: One of the seven, or `UNLABELLED`; the most frequent, where there are several.
      sentence: Name of the clip; the files do not tell what is said.
      codes: Its code dict.
      frame_emotions: See `TrackEntry`.
    """

    clip: str
    speaker: str
    emotion: str
    sentence: str
    codes: CodeDict
    frame_emotions: tuple[tuple[str, int], ...] = ()


def read_actor_file(path: Path) -> tuple[list[ImportedClip], list[Problem]]:
    """Returns the clips of an `ACTOR_deca.pkl`, numbered within their emotion, and those that cannot be used.

    Raises:
      InputError: The file is unsafe, damaged or of another layout.
    """
    content = load_pickle(path)
    if not isinstance(content, list | tuple) or not content:
        raise InputError(f"{path}: {_kind(content)}, expected a list of pairs: array (frames, 53), emotion")
    actor = id_part(path.name.removesuffix(_ACTOR_ENDING))
    numbers: collections.Counter[str] = collections.Counter()
    clips, problems = [], []
    for position, item in enumerate(content):
        values, spelling = _pair(path, position, item)
        try:
            emotion = _emotion(spelling)
            numbers[emotion] += 1
            name = f"{numbers[emotion]:03d}"
            clips.append(ImportedClip(f"{actor}/{emotion}/{name}", actor, emotion, name, _codes(values)))
        except (InputError, ValueError) as error:
            problems.append(Problem(f"{path.name}, entry {position}", str(error)))
    return clips, problems


def read_annotations(path: Path) -> Int[np.ndarray, " n"]:
    """Returns the label of each frame of an Aff-Wild2 video, -1 for none.

    Raises:
      InputError: No such file, or a line that is no label.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=2):
        if line.strip() not in _LABELS:
            raise InputError(f"{path}, line {number}: {line.strip()[:40]!r}, expected a label -1..{len(EMOTIONS) - 1}")
    return np.array([int(line) for line in lines], np.int64)


def read_video(folder: Path, video: str, annotations: Path) -> ImportedClip:
    """Returns an Aff-Wild2 video with the emotion of each of its frames.

    Raises:
      InputError: Its code dicts or annotations are missing, damaged, or not of one video.
    """
    codes, labels = read_published_codes(folder), read_annotations(annotations)
    last = int(codes.frame_index[-1])
    if last >= len(labels):
        raise InputError(f"{annotations} labels {len(labels)} frames, {folder} has frame {last}")
    names = [UNLABELLED if label < 0 else EMOTIONS[label] for label in labels[codes.frame_index].tolist()]
    counts = collections.Counter(name for name in names if name != UNLABELLED)
    emotion = counts.most_common(1)[0][0] if counts else UNLABELLED
    runs = tuple((name, len(list(run))) for name, run in itertools.groupby(names))
    name = id_part(video)
    return ImportedClip(f"{name}/{emotion}/{name}", name, emotion, name, codes, runs)


def find_clips(source: Path, annotations: Path | None = None) -> tuple[Iterator[ImportedClip | Problem], str]:
    """Returns the clips of a source, read one after the other, and the name of its layout.

    Args:
      source: An `ACTOR_deca.pkl`, a folder of them, or an Aff-Wild2 folder.
      annotations: Folder of Aff-Wild2's `VIDEO.txt`; None looks beside the code dicts.

    Raises:
      InputError: It has neither layout; while reading, a file of actors that is not as described.
    """
    if source.is_file() and source.name.endswith(_ACTOR_ENDING):
        return _actors([source]), "actor files"
    if not source.is_dir():
        raise InputError(f"{source}: expected ACTOR{_ACTOR_ENDING}, a folder of such files, or an Aff-Wild2 folder")
    actors = sorted(path for path in source.glob(f"*{_ACTOR_ENDING}") if not is_litter(path.name))
    if actors:
        return _actors(actors), "actor files"
    videos = _video_folders(source)
    if videos:
        return _videos(videos, source, annotations), "Aff-Wild2"
    raise InputError(
        f"{source}: neither ACTOR{_ACTOR_ENDING} files nor code dicts of videos "
        "(DECA/VIDEO/000000.pkl, VIDEO/DECA/000000.pkl or VIDEO/000000.pkl) in it"
    )


def _actors(paths: Sequence[Path]) -> Iterator[ImportedClip | Problem]:
    for path in paths:
        clips, problems = read_actor_file(path)
        yield from clips
        yield from problems


def _video_folders(source: Path) -> dict[str, Path]:
    """Folders of code dicts by the name of the video."""
    root = source / "DECA" if (source / "DECA").is_dir() else source
    folders = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        inner = folder / "DECA" if (folder / "DECA").is_dir() else folder
        if any(inner.glob("*.pkl")):
            folders[folder.name] = inner
    return folders


def _videos(videos: dict[str, Path], source: Path, annotations: Path | None) -> Iterator[ImportedClip | Problem]:
    for video, folder in videos.items():
        places = [source, source / "videos", source / video] if annotations is None else [annotations]
        files = [place / f"{video}.txt" for place in places]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            yield Problem(video, f"no annotations; expected {' or '.join(map(str, files))}")
            continue
        try:
            yield read_video(folder, video, file)
        except InputError as error:
            yield Problem(video, str(error))


def _pair(path: Path, position: int, item: Any) -> tuple[np.ndarray, Any]:
    columns = _JAW + _EXPRESSION
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], np.ndarray):
        values = item[0]
        if values.ndim == 2 and values.shape[1] == columns and values.dtype.kind == "f":
            return values, item[1]
        raise InputError(
            f"{path}, entry {position}: {values.dtype} array of shape {values.shape}, expected numbers of shape "
            f"(frames, {columns}): jaw rotation {_JAW}, expression {_EXPRESSION}"
        )
    raise InputError(f"{path}, entry {position}: {_kind(item)}, expected a pair: array (frames, {columns}), emotion")


def _kind(content: Any) -> str:
    size = f" of {len(content)}" if isinstance(content, list | tuple | dict) else ""
    return f"a {type(content).__name__}{size}"


def _emotion(spelling: Any) -> str:
    """The schema's name of an emotion that is told by name or by number."""
    if isinstance(spelling, str):
        return emotion_name(spelling)
    if isinstance(spelling, int | np.integer) and not isinstance(spelling, bool) and 0 <= spelling < len(EMOTIONS):
        return EMOTIONS[spelling]
    raise ValueError(f"emotion {spelling!r}: expected a name or a number 0..{len(EMOTIONS) - 1}")


def _codes(values: np.ndarray) -> CodeDict:
    frames = len(values)
    if not frames:
        raise InputError("no frames")
    pose = np.zeros((frames, 6), np.float32)
    pose[:, 3:] = values[:, :_JAW]
    return CodeDict(
        frame_index=np.arange(frames),
        shape=np.zeros((frames, _SHAPE), np.float32),
        exp=values[:, _JAW:].astype(np.float32),
        pose=pose,
        cam=np.tile(np.array(_FRONTAL_CAMERA, np.float32), (frames, 1)),
    )


MEAD_VALIDATION_SPEAKER = "M023"
"""The speaker whom the published manipulator holds out."""


def hold_out(
    clips: Sequence[tuple[str, str, str]],
    *,
    validation: Sequence[str] = (),
    share: float = 0.1,
    test: Sequence[str] | None = None,
) -> dict[str, str]:
    """Returns the split, "train", "validation" or "test", of each clip by its id.

    Nothing trains on "test" or selects by it: named speakers and clips, else MEAD's test speakers, unless nobody else
    is there. Of the rest, named speakers and clips are held out for validation. Else MEAD holds out M023, as published.
    Else a share of the speakers, at least one, in an order that depends on nothing but their names; of a single
    speaker, that share of the clips of each emotion that has several.

    Args:
      clips: Id, speaker and emotion of each.
      validation: Names of speakers or ids of clips to hold out.
      share: How much else.
      test: Names of speakers or ids of clips to report on; None takes MEAD's.

    Raises:
      InputError: A name is not there, a share makes no sense, or nothing is left to train on.
    """
    if not 0 <= share < 1:
        raise InputError(f"--validation-share {share}: expected at least 0 and less than 1")
    everybody = sorted({speaker for _, speaker, _ in clips})
    for option, named in (("--validation", validation), ("--test", test or ())):
        if unknown := sorted(set(named) - set(everybody) - {clip for clip, _, _ in clips}):
            shown = ", ".join(everybody[:8]) + (", ..." if len(everybody) > 8 else "")
            raise InputError(f"{option} {', '.join(unknown)}: neither a clip's id nor among the speakers {shown}")
    reported = set(test if test is not None else TEST_SPEAKERS["mead"] if _others(everybody) else ())
    splits = {clip: "test" for clip, speaker, _ in clips if {clip, speaker} & reported}
    clips = [entry for entry in clips if entry[0] not in splits]
    if both := sorted(set(validation) - {name for clip, speaker, _ in clips for name in (clip, speaker)}):
        raise InputError(
            f"--validation {', '.join(both)}: kept to report on, so nothing may be selected by it; name others, or"
            " --test NAME ... to report on"
        )
    speakers = sorted({speaker for _, speaker, _ in clips})
    held_out = set(validation)
    if not held_out and MEAD_VALIDATION_SPEAKER in speakers and len(speakers) > 1 and share:
        held_out = {MEAD_VALIDATION_SPEAKER}
    elif not held_out and len(speakers) > 1:
        held_out = set(_picked(speakers, share))
    elif not held_out:
        for emotion in {emotion for _, _, emotion in clips}:
            held_out |= set(_picked([clip for clip, _, found in clips if found == emotion], share))
    splits |= {clip: "validation" if {clip, speaker} & held_out else "train" for clip, speaker, _ in clips}
    if "train" not in splits.values():
        raise InputError("--validation and --test name every clip: none is left to train on")
    return splits


def import_tracks(
    source: Path,
    output: Path,
    *,
    annotations: Path | None = None,
    validation: Sequence[str] = (),
    share: float = 0.1,
    test: Sequence[str] | None = None,
) -> tuple[TrackList, list[Problem]]:
    """Writes a directory of tracks of published files; returns its list and what was left out.

    Args:
      source: An `ACTOR_deca.pkl`, a folder of them, or an Aff-Wild2 folder.
      output: New directory.
      annotations: Folder of Aff-Wild2's `VIDEO.txt`; None looks beside the code dicts.
      validation: Speakers or clips to hold out.
      share: How much to hold out, where nobody is named.
      test: Speakers or clips to report on; None takes MEAD's test speakers.

    Raises:
      InputError: The source holds neither layout or no usable clip, or the output is in use.
    """
    if (output / LIST_NAME).exists():
        raise InputError(f"{output} holds tracks already: choose another --output or delete it")
    found, kind = find_clips(source, annotations)
    (output / "codes").mkdir(parents=True, exist_ok=True)
    problems: list[Problem] = []
    clips: list[tuple[ImportedClip, int]] = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
            continue
        item.codes.save(codes_path(output, item.clip))
        # Of what is on the disk the frames alone are kept in memory.
        clips.append((dataclasses.replace(item, codes=item.codes[:0]), len(item.codes)))
    if not clips:
        reason = f"; first of all {problems[0].subject}: {problems[0].reason}" if problems else ""
        raise InputError(f"{source}: none of {len(problems)} clips can be used{reason}")
    named = [(item.clip, item.speaker, item.emotion) for item, _ in clips]
    splits = hold_out(named, validation=validation, share=share, test=test)
    entries = {
        item.clip: TrackEntry(item.speaker, item.emotion, item.sentence, splits[item.clip], frames, item.frame_emotions)
        for item, frames in clips
    }
    settings = {
        "layout": kind,
        "validation": list(validation),
        "validation_share": share,
        "test": None if test is None else list(test),
        "left_out": [[problem.subject, problem.reason] for problem in problems],
    }
    tracks = TrackList(readable(source.resolve().name), entries, settings)
    write_track_list(output, tracks)
    return tracks, problems


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description="Turns published coefficient files into tracks to train the manipulator on.",
    )
    parser.add_argument("source", type=Path, help="ACTOR_deca.pkl, a folder of them, or an Aff-Wild2 folder")
    parser.add_argument("--output", type=Path, required=True, help="new directory of tracks")
    parser.add_argument("--annotations", type=Path, help="folder of Aff-Wild2's VIDEO.txt (beside the code dicts)")
    parser.add_argument("--validation", nargs="+", default=(), metavar="NAME", help="speakers or clips to hold out")
    parser.add_argument(
        "--validation-share", type=float, default=0.1, help="of the speakers, where none is named (0.1)"
    )
    parser.add_argument(
        "--test", nargs="*", metavar="NAME", help="speakers or clips to report on (default: MEAD's test speakers)"
    )
    options = parser.parse_args(arguments)
    with sole_writer(options.output, "--output"):
        tracks, problems = import_tracks(
            options.source,
            options.output,
            annotations=options.annotations,
            validation=options.validation,
            share=options.validation_share,
            test=options.test,
        )
    for problem in problems:
        sys.stderr.write(f"left out: {problem.subject}: {problem.reason}\n")
    held_out = sum(entry.split != "train" for entry in tracks.clips.values())
    frames = sum(entry.frames for entry in tracks.clips.values())
    sys.stdout.write(
        f"{options.output}: {len(tracks.clips)} clips, {held_out} of them held out, {frames:,} frames; "
        f"{len(problems)} clips left out\n"
    )
    return 0


def _others(speakers: Iterable[str]) -> bool:
    return bool(set(speakers) - set(TEST_SPEAKERS["mead"]))


def _picked(names: Iterable[str], share: float) -> list[str]:
    """A share of names, at least one and never all, by an order of their own that further names do not change."""
    ranked = sorted(names, key=name_hash)
    if not share or len(ranked) < 2:
        return []
    return ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)]


if __name__ == "__main__":
    sys.exit(main())
