"""Clips of few small frames whose landmarks come from the built-in head, so that its fit must succeed."""

import csv
import functools
from pathlib import Path

import numpy as np
from PIL import Image

from asccl_jax.data.codes import CodeDict
from data_prep.head_fit.head_assets import builtin_assets, head_model
from data_prep.head_fit.head_drawing import HeadRenderer, Renders

SIZE = 224


def codes_of(frames: int, *, open_mouth: bool) -> CodeDict:
    """Codes of a head that turns a little and perhaps opens its mouth."""
    time = np.linspace(0, 1, frames)
    pose = np.zeros((frames, 6), np.float32)
    pose[:, 1] = 0.1 * np.sin(3 * time)
    pose[:, 3] = 0.2 * time if open_mouth else 0.02
    return CodeDict(
        frame_index=np.arange(frames),
        shape=np.zeros((frames, 100), np.float32),
        exp=np.zeros((frames, 50), np.float32),
        pose=pose,
        cam=np.tile(np.float32([8.0, 0.0, 0.0]), (frames, 1)),
        tform=np.tile(np.eye(3), (frames, 1, 1)),
        original_size=(SIZE, SIZE),
    )


@functools.cache
def renders_of(frames: int, *, open_mouth: bool) -> Renders:
    return HeadRenderer(head_model(builtin_assets())).renders(codes_of(frames, open_mouth=open_mouth))


def write_clip(folder: Path, *, frames: int, open_mouth: bool, missing: tuple[int, ...] = ()) -> Path:
    """Writes numbered frames and, beside them, landmarks; frames of `missing` have no face."""
    renders = renders_of(frames, open_mouth=open_mouth)
    folder.mkdir(parents=True)
    for number in range(frames):
        Image.fromarray((renders.shape[number] * 255).astype(np.uint8)).save(folder / f"{number:06d}.png")
    landmarks = renders.landmarks.astype(np.float32).copy()
    landmarks[list(missing)] = np.nan
    np.savez(folder.with_suffix(".npz"), landmarks68=landmarks)
    return folder


def write_list(path: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """Writes a list of clips: path, speaker, emotion, sentence."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "speaker", "emotion", "sentence"])
        writer.writerows(rows)
    return path
