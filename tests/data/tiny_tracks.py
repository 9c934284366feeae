"""Tracks whose every number tells clip, frame and column, for the tests of whatever reads them."""

import dataclasses
from pathlib import Path

import numpy as np

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS, UNLABELLED
from asccl_jax.data.tracks import (
    COEFFICIENTS,
    NO_LABEL,
    CoefficientTrack,
    TrackEntry,
    TrackList,
    codes_path,
    write_track_list,
)


def codes(frames, *, first: float = 0.0) -> CodeDict:
    """A code dict with first + frame + column / 100 as coefficient of each column."""
    index = np.asarray(frames, np.int64)
    values = (first + index[:, None] + np.arange(COEFFICIENTS) / 100).astype(np.float32)
    pose = np.zeros((len(index), 6), np.float32)
    pose[:, 3] = values[:, 0]
    return CodeDict(
        frame_index=index,
        shape=np.zeros((len(index), 100), np.float32),
        exp=values[:, 1:],
        pose=pose,
        cam=np.ones((len(index), 3), np.float32),
    )


def track(clip: str, frames, labels=None, *, split: str = "train", first: float = 0.0) -> CoefficientTrack:
    speaker, emotion, sentence = clip.split("/")
    made = codes(frames, first=first)
    if labels is None:
        labels = [NO_LABEL if emotion == UNLABELLED else EMOTIONS.index(emotion)] * len(made)
    return CoefficientTrack(
        clip=clip,
        speaker=speaker,
        emotion=emotion,
        sentence=sentence,
        split=split,
        coefficients=np.concatenate([made.pose[:, 3:4], made.exp], axis=1),
        frame_index=made.frame_index,
        labels=np.asarray(labels, np.int32),
    )


def write_tracks(directory: Path, clips: dict[str, CodeDict], **changes) -> None:
    """Writes a directory of tracks; a clip's entry has the fields of `changes` besides what its id says."""
    (directory / "codes").mkdir(parents=True)
    entries = {}
    for clip, made in clips.items():
        made.save(codes_path(directory, clip))
        speaker, emotion, sentence = clip.split("/")
        split = "validation" if speaker == "held" else "train"
        entries[clip] = dataclasses.replace(TrackEntry(speaker, emotion, sentence, split, len(made)), **changes)
    write_track_list(directory, TrackList("tiny", entries))
