"""Aligned frames whose colours tell which frame of which clip they are, in memory, as records and as folders."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from asccl_jax.data.aligned_frames import AlignedClips, AlignedFrame, RenderedClip, find_runs
from asccl_jax.data.dataset import begin_dataset, finish_dataset, write_frame_shard, write_render_shard
from tests.data.tiny_dataset import frame_record, render_record

STORED = 256


def landmarks(frame: int = 0) -> np.ndarray:
    """68 landmarks of an upright face, moved to the right by the frame's number."""
    turn = np.linspace(np.pi, 0, 17)
    points = np.zeros((68, 2))
    points[:17] = np.stack([128 + 60 * np.cos(turn), 120 + 95 * np.sin(turn)], 1)
    points[17:27] = np.stack([np.linspace(80, 176, 10), np.full(10, 90.0)], 1)
    points[27:36] = np.stack([np.full(9, 128.0), np.linspace(110, 155, 9)], 1)
    eye = np.array([[-12, 0], [-5, -6], [5, -6], [12, 0], [5, 6], [-5, 6]], float)
    points[36:42], points[42:48] = eye + np.array([98, 110]), eye + np.array([158, 110])
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points[48:68] = np.stack([127.6 + 25 * np.cos(turn), 175.3 + 8 * np.sin(turn)], 1)
    return points + np.array([frame, 0])


def picture(level: int) -> np.ndarray:
    return np.broadcast_to(np.array([level, 255 - level, 90], np.uint8), (STORED, STORED, 3)).copy()


class PaintedClips(AlignedClips):
    """Frame t of clip number c has the levels t in the image, t + 1, t + 2 in the conditioning, and c in the mask."""

    def __init__(self, frames: dict[str, list[int]], *, image_size: int = 8, split: str = "train") -> None:
        super().__init__(image_size, cache_bytes=1 << 24)
        self.clips = {
            clip: RenderedClip(clip, clip, "neutral", "1", split, 30.0, find_runs(np.array(positions)))
            for clip, positions in frames.items()
        }
        self.left_out = {}
        self.loaded: list[tuple[str, int]] = []

    def facts(self, clip: str) -> list[Any]:
        return [self.entry(clip).runs]

    def _load(self, clip: str, frame: int) -> AlignedFrame:
        self.loaded.append((clip, frame))
        size = (self.image_size, self.image_size)
        levels = [np.full((*size, 3), frame + add, np.uint8) for add in (0, 1, 2)]
        return AlignedFrame(
            image=levels[0],
            nmfc_image=levels[1],
            shape_image=levels[2],
            eyes_image=np.zeros((*size, 3), np.uint8),
            mask=np.full((*size, 1), 255, np.uint8),
            mouth_centre=np.array([frame, list(self.clips).index(clip)], np.int32),
            face_box=np.array([1, 1, 7, 7 - frame / 100], np.float32),
            eye_points=np.trunc(np.concatenate([landmarks()[36:48], [[98, 110], [158, 110]]])).astype(np.int64),
            stored_size=STORED,
        )


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def painted_render(clip: str, frame: int, **change: object):
    """A render whose pictures can be decoded; the head fills the middle columns."""
    alpha = np.zeros((STORED, STORED), np.uint8)
    alpha[:, 40:216] = 255
    fields = {
        "aligned_image": simplejpeg.encode_jpeg(picture(100 + frame), 98, colorsubsampling="444"),
        "aligned_nmfc_image": png(picture(20 + frame)),
        "aligned_shape_image": png(picture(60 + frame)),
        "aligned_alpha_image": png(alpha),
        "aligned_landmarks": landmarks(frame).astype(np.float32),
        **change,
    }
    return dataclasses.replace(render_record(clip, frame), **fields)


def write_records(directory: Path, clips: dict[str, dict[int, dict[str, object]]], split: str = "train") -> Path:
    """Writes a data set of renders: by clip and frame, what differs from `painted_render`."""
    begin_dataset(directory)
    frames = [(clip, frame, change) for clip, rows in clips.items() for frame, change in rows.items()]
    entry = write_frame_shard(directory, split, 0, 1, [frame_record(clip, frame) for clip, frame, _ in frames])
    renders = [painted_render(clip, frame, **change) for clip, frame, change in frames]
    shard = write_render_shard(directory, split, 0, 1, renders)
    finish_dataset(directory, name="painted", shards=[entry], renders={split: [shard]})
    return directory


def write_subject(folder: Path, sequences: dict[str, list[int]], *, mouth: bool = True) -> Path:
    """Writes the published folders of a subject; "" is a flat folder."""
    for sequence, frames in sequences.items():
        for frame in frames:
            mask = np.zeros((STORED, STORED, 3), np.uint8)
            mask[60:200, 60:190] = 255
            face = np.where(mask > 0, picture(100 + frame), 0).astype(np.uint8)
            pictures = {"faces": face, "masks": mask, "nmfcs": picture(20 + frame), "shapes": picture(60 + frame)}
            for kind, image in pictures.items():
                path = folder / f"{kind}_aligned" / sequence / f"{frame:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(image))
            points = landmarks(frame)
            rows = [points[36:48], [[98.2 + frame, 110.4], [158.9 + frame, 110]], *([points[48:]] if mouth else [])]
            path = folder / "eye_landmarks_aligned" / sequence / f"{frame:06d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, np.concatenate(rows))
    return folder
