"""The clips that are evaluated: a list, a tree of folders that names emotions and speakers, or a single video."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from asccl_jax.errors import InputError
from asccl_jax.paths import id_part, is_litter
from data_prep.media.clips import Clip, Problem, emotion_name, reject_duplicates, sentence_key
from data_prep.media.decode import IMAGE_SUFFIXES
from data_prep.media.layouts import AUDIO_SUFFIXES, VIDEO_SUFFIXES, find_clips, located, read_csv

__all__ = ["LIST_NAME", "ClipSet", "GivenClip", "read_clips"]

LIST_NAME = "clips.csv"

_EXPECTED = (
    f"expected {LIST_NAME} (columns path,speaker,emotion,sentence and, if wanted, take, audio, landmarks, source,"
    " driver, truth), or EMOTION/SPEAKER/CLIP.mp4, or EMOTION/SPEAKER[/CLIP]/%06d.png"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenClip:
    """A clip as it was given.

    Attributes:
      clip: Who, which emotion, which sentence, which files.
      base: Folder from which paths in the texts below start.
      source: What the list says its source is: a clip's id, a path, a file name; or nothing.
      driver: Whose expression it was given: a speaker, a clip's id or path; or nothing.
      truth: Which real clip shows exactly what it should show; as `source`.
    """

    clip: Clip
    base: Path
    source: str = ""
    driver: str = ""
    truth: str = ""


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """The clips of one side.

    Attributes:
      option: The option that named it, for messages.
      path: What it named.
      clips: What can be read, in the order of the ids.
      problems: What was found and cannot be used.
      single: Whether one video file was named.
    """

    option: str
    path: Path
    clips: tuple[GivenClip, ...]
    problems: tuple[Problem, ...] = ()
    single: bool = False


def read_clips(path: Path, option: str, *, default_emotion: str | None = None) -> ClipSet:
    """Returns the clips that a path names.

    Args:
      path: Folder with `clips.csv`, such a file itself, a tree of folders, or one video.
      option: The option that named it, for messages.
      default_emotion: Emotion of a clip whose path tells none; None refuses such clips.

    Raises:
      InputError: Nothing there, or not one clip that can be used.
    """
    if not path.exists():
        raise InputError(f"{option} {path}: no such file or folder; {_EXPECTED}")
    single = path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
    table = path / LIST_NAME if path.is_dir() else path
    if single:
        found = list(_named(path.parent, [path], default_emotion))
    elif table.is_file():
        return _listed(path, table, option)
    else:
        found = list(_named(path, _media(path), default_emotion))
    kept, duplicates = reject_duplicates(entry for entry in found if isinstance(entry, Clip))
    problems = (*(entry for entry in found if isinstance(entry, Problem)), *duplicates)
    if not kept:
        details = "".join(f"; {problem.subject}: {problem.reason}" for problem in problems[:3])
        raise InputError(f"{option} {path}: no clip found, {_EXPECTED}{details}")
    given = tuple(GivenClip(clip=clip, base=path.parent if single else path) for clip in kept)
    return ClipSet(option, path, given, problems, single)


def _listed(path: Path, table: Path, option: str) -> ClipSet:
    try:
        clips, problems = find_clips(table, "list")
    except InputError as error:
        raise InputError(f"{option} {error}") from error
    base = table.parent
    rows = {located(base, row["path"]): row for row in read_csv(table, ("path",)).values()}
    given = []
    for clip in clips:
        row = rows[clip.video]
        extra = {name: row.get(name) or "" for name in ("source", "driver", "truth")}
        given.append(GivenClip(clip=clip, base=base, **extra))
    return ClipSet(option, path, tuple(given), tuple(problems))


def _media(folder: Path) -> Iterator[Path]:
    """Yields videos and folders of numbered pictures, in the order of their names."""
    if not folder.is_dir():
        return
    inside = sorted(path for path in folder.iterdir() if not is_litter(path.name))
    if any(path.suffix.lower() in IMAGE_SUFFIXES and path.stem.isdecimal() for path in inside):
        yield folder
        return
    for path in inside:
        if path.is_dir():
            yield from _media(path)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            yield path


def _named(root: Path, media: Sequence[Path] | Iterator[Path], default: str | None) -> Iterator[Clip | Problem]:
    """Reads clips off their paths: the part that is an emotion, then the speaker, then the clip."""
    for path in media:
        parts = path.relative_to(root).parts
        stem = path.name if path.is_dir() else path.stem
        names = [*parts[:-1], stem] if parts else [stem]
        try:
            emotion, rest, said = _parts(names, default, whole=path.is_dir())
        except ValueError as error:
            yield Problem(str(path), str(error))
            continue
        yield Clip(
            clip_id=f"{id_part(rest)}/{emotion}/{id_part(said)}",
            speaker=id_part(rest),
            emotion=emotion,
            sentence=said,
            name=said,
            video=path,
            audio=_sound_beside(path) if path.is_dir() else None,
        )


def _parts(names: Sequence[str], default: str | None, *, whole: bool) -> tuple[str, str, str]:
    """Emotion, speaker and sentence that the parts of a path tell.

    Args:
      names: Parts of the path below the root, the last without ending.
      default: Emotion where no part tells one.
      whole: Whether the last part is a folder of frames, which may be all that a speaker has.

    Raises:
      ValueError: No emotion, or several.
    """
    emotions = {place: name for place, name in enumerate(map(_emotion, names)) if name}
    rest = [name for place, name in enumerate(names) if place not in emotions]
    if not emotions:
        words = re.split(r"[_\W]+", names[-1])
        told = [name for name in map(_emotion, words) if name]
        if len(told) == 1:
            emotions = {len(names): told[0]}
            rest[-1] = "_".join(word for word in words if not _emotion(word))
        elif default is None:
            raise ValueError("no emotion in its path; name it by a folder (EMOTION/SPEAKER/CLIP.mp4) or a list")
    if len(set(emotions.values())) > 1:
        raise ValueError(f"several emotions in its path ({', '.join(emotions.values())}); say which in {LIST_NAME}")
    emotion = next(iter(emotions.values()), default) or ""
    if len(names) - 1 in emotions or (whole and len(rest) == 1):  # the last part names no clip
        return emotion, rest[0] if rest else "person", sentence_key("-".join(rest[1:])) or "clip"
    return emotion, rest[0] if len(rest) > 1 else "person", sentence_key("-".join(rest[1:] or rest)) or "clip"


def _emotion(name: str) -> str:
    try:
        return emotion_name(name)
    except ValueError:
        return ""


def _sound_beside(folder: PurePath) -> Path | None:
    candidates = (Path(folder.parent) / (folder.name + suffix) for suffix in AUDIO_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)
