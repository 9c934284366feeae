"""Which clips an input holds: a video, a folder of videos, a list, MEAD, RAVDESS, records, or NED folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from asccl_jax.data.manifest import MANIFEST_NAME, read_manifest
from asccl_jax.data.schema import UNLABELLED
from asccl_jax.errors import InputError
from asccl_jax.paths import id_part, is_litter
from data_prep.media.clips import Clip, Problem, emotion_name, reject_duplicates
from data_prep.media.landmarks import Precomputed, make_backend
from data_prep.media.layouts import VIDEO_SUFFIXES, assign_splits, find_clips, is_ravdess_actor, mead_kind
from data_prep.reconstruct.folders import is_subject, subject_images
from data_prep.reconstruct.reconstruct_settings import Reconstruction

__all__ = ["InputClip", "find_inputs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputClip:
    """A clip and what kind of thing its `video` path names.

    Attributes:
      clip: The clip.
      kind: "video" (a file, or a folder of numbered images), "records" (a data set) or "folders" (a NED subject).
      split: Split of its records.
    """

    clip: Clip
    kind: Literal["video", "records", "folders"]
    split: str = "train"

    @property
    def name(self) -> str:
        """The clip's id."""
        return self.clip.clip_id


def find_inputs(settings: Reconstruction) -> tuple[list[InputClip], list[Problem], str]:
    """Returns the clips in the order of their ids, what in the input cannot be used, and the layout it has.

    Raises:
      InputError: The input is missing, of no known layout, or holds no clip.
    """
    layout = detect_layout(settings.source) if settings.layout == "auto" else settings.layout
    if not settings.source.exists():
        raise InputError(f"{settings.source} does not exist: give a video, a folder, a CSV list or a data set")
    if layout == "records":
        return [*_recorded(settings.source)], [], layout
    problems: list[Problem] = []
    kind: Literal["video", "folders"] = "video"
    if layout in ("mead", "ravdess", "list"):
        clips, problems = find_clips(settings.source, layout, levels=settings.levels)
    elif layout == "folders":
        clips, kind = _subjects(settings), "folders"
    else:
        clips = _plain_videos(settings, layout)
    splits = assign_splits(
        clips,
        layout=layout,
        validation_speakers=settings.validation_speakers,
        test_speakers=settings.test_speakers,
    )
    if layout in ("video", "videos", "folders") and not settings.validation_speakers:
        splits = {clip: "test" if split == "test" else "train" for clip, split in splits.items()}
    backend = make_backend(settings.track.landmarks)
    if isinstance(backend, Precomputed):
        clips = [dataclasses.replace(clip, landmarks=backend.find(clip)) for clip in clips]
    backend.close()
    return [InputClip(clip=clip, kind=kind, split=splits[clip.clip_id]) for clip in clips], problems, layout


def detect_layout(source: Path) -> str:
    """Returns the layout of an input, by what lies there.

    Raises:
      InputError: Nothing is there, or nothing that is known.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist: give a video, a folder, a CSV list or a data set")
    if source.is_file():
        if source.suffix.lower() == ".csv":
            return "list"
        if source.suffix.lower() in VIDEO_SUFFIXES:
            return "video"
        raise InputError(f"{source}: neither a video ({', '.join(VIDEO_SUFFIXES)}) nor a list (.csv)")
    if (source / MANIFEST_NAME).is_file():
        return "records"
    inside = sorted(path for path in source.iterdir() if not is_litter(path.name))
    if is_subject(source) or any(is_subject(path) for path in inside):
        return "folders"
    if any(mead_kind(folder) for folder in (source, *inside)):
        return "mead"
    if any(is_ravdess_actor(path.name) for path in inside):
        return "ravdess"
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in inside):
        return "videos"
    raise InputError(
        f"{source}: no videos, no {MANIFEST_NAME}, no NED folders (images/, DECA/), and neither MEAD nor RAVDESS;"
        " name the layout with --layout, or give the folder that holds the videos"
    )


def _plain_videos(settings: Reconstruction, layout: str) -> list[Clip]:
    source = settings.source
    if (layout == "video") == source.is_dir():
        raise InputError(f"{source}: layout {layout!r} expects a {'file' if layout == 'video' else 'folder'}")
    videos = [source]
    if layout == "videos":
        there = (path for path in source.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        videos = sorted(path for path in there if not is_litter(path.name))
        if not videos:
            raise InputError(f"{source}: no video in it ({', '.join(VIDEO_SUFFIXES)})")
    clips, repeated = reject_duplicates(_labelled(settings, video.stem, video) for video in videos)
    if repeated:
        raise InputError(f"{repeated[0].subject}: {repeated[0].reason}; rename one of the videos")
    return clips


def _labelled(settings: Reconstruction, name: str, video: Path) -> Clip:
    if "/" in settings.speaker:
        raise InputError(f"--speaker {settings.speaker}: must not contain '/'")
    name, speaker = id_part(name), id_part(settings.speaker or name)
    emotion = UNLABELLED
    if settings.emotion:
        try:
            emotion = emotion_name(settings.emotion)
        except ValueError as error:
            raise InputError(f"--emotion: {error}") from error
    clip_id = f"{speaker}/{emotion}/{name}"
    return Clip(clip_id=clip_id, speaker=speaker, emotion=emotion, sentence=name, name=name, video=video)


def _subjects(settings: Reconstruction) -> list[Clip]:
    source = settings.source
    folders = [source] if is_subject(source) else sorted(path for path in source.iterdir() if is_subject(path))
    if not folders:
        raise InputError(f"{source}: no NED folder; expected images/ or DECA/ in it, or in the folders inside")
    for folder in folders:
        subject_images(folder)
    return [_labelled(settings, folder.resolve().name, folder) for folder in folders]


def _recorded(directory: Path) -> Sequence[InputClip]:
    """Clips of a data set; its single-frame comparisons are no clips."""
    manifest = read_manifest(directory)
    found = []
    for name, entry in sorted(manifest.clips.items()):
        if entry.split == "comparisons":
            continue
        clip = Clip(
            clip_id=name,
            speaker=entry.speaker,
            emotion=entry.emotion,
            sentence=entry.sentence,
            name=name.split("/")[-1],
            video=directory,
        )
        found.append(InputClip(clip=clip, kind="records", split=entry.split))
    if not found:
        raise InputError(f"{directory}: a data set without clips; prepare it again")
    return found
