"""The layouts of other projects' coefficient files, read as clips; nothing that a pickle names is run.

* `ACTOR_deca.pkl`, MEAD as NED's reconstruction leaves it: a list with a pair for each clip, an array (frames, 53) of
  the jaw's rotation (3) and the expression (50), and the emotion. Identity, head pose and camera are not in it: clips
  get the mean head, looking straight.
* Aff-Wild2: code dicts in `DECA/VIDEO/%06d.pkl`, `VIDEO/DECA/%06d.pkl` or `VIDEO/%06d.pkl`, numbered from 0 as the
  frames of the video, and annotations in `VIDEO.txt`: a line of names, then one label a frame, -1 for none.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS, UNLABELLED
from asccl_jax.errors import InputError
from asccl_jax.paths import id_part, is_litter
from data_prep.media.clips import Problem, emotion_name
from DECA_torch_bridge.published_codes import read_published_codes
from DECA_torch_bridge.safe_pickle import load_pickle

__all__ = ["ImportedClip", "find_clips", "read_actor_file", "read_annotations", "read_video"]

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
