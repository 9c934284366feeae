"""Records of one person with a drawn mouth, a neutral held-out clip and its happy twin, and edits of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from asccl_jax.data.dataset import begin_dataset, finish_dataset, write_frame_shard, write_render_shard
from tests.data.painted_clips import landmarks, painted_render, picture, png
from tests.data.tiny_dataset import frame_record

CLIPS = {
    "train": {"A/neutral/1": range(5), "A/sad/1": range(5)},
    "validation": {"A/neutral/2": range(5), "A/happy/2": range(5)},
}
LOWER = 6.0
"""Pixels by which a happy mouth lies lower than a neutral one."""


def mouth_render(clip: str, frame: int):
    """A face with a dark mouth; a happy one is also aligned differently: all of it is 4 pixels further right."""
    happy = "happy" in clip
    points = landmarks()
    points[48:68, 1] += LOWER * happy + frame
    moved = np.array([4.0 * happy, 0.0])
    rows, columns = np.indices((256, 256))
    middle = points[48:68].mean(axis=0) + moved
    inside = np.hypot((columns - middle[0]) / 25, (rows - middle[1]) / 8) < 1
    face = np.where(inside[..., None], np.array([60, 20, 20]), np.array([200, 160, 140])).astype(np.uint8)
    align = np.eye(2, 3, dtype=np.float32)
    align[:, 2] = moved
    return painted_render(
        clip,
        frame,
        aligned_image=simplejpeg.encode_jpeg(face, 98, colorsubsampling="444"),
        aligned_landmarks=(points + moved).astype(np.float32),
        align_transform=align,
    )


def write_talking_records(directory: Path, clips: Mapping[str, Mapping[str, Sequence[int]]] = CLIPS) -> Path:
    """Writes the frames of clips by split."""
    begin_dataset(directory)
    entries, renders = [], {}
    for split, contents in clips.items():
        frames = [(clip, number) for clip, numbers in contents.items() for number in numbers]
        entries.append(write_frame_shard(directory, split, 0, 1, [frame_record(*frame) for frame in frames]))
        renders[split] = [write_render_shard(directory, split, 0, 1, [mouth_render(*frame) for frame in frames])]
    finish_dataset(directory, name="talking", shards=entries, renders=renders)
    return directory


def write_edit(folder: Path, frames=range(5)) -> Path:
    for kind, level in (("nmfc", 30), ("shape", 90), ("eyes", 150)):
        (folder / kind).mkdir(parents=True)
        for number in frames:
            (folder / kind / f"{number:06d}.png").write_bytes(png(picture(level + number)))
    return folder
