"""A short video of a "face", its records, its track and its rendered faces, made without any reconstruction."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from asccl_jax.data.tracks import clip_file_name
from asccl_jax.image.polygon import face_outline
from asccl_jax.image.warping import moved
from data_prep.media.decode import read_frames
from data_prep.reconstruct.drawing import TEMPLATE, alignment_matrices, warped
from data_prep.reconstruct.track_step import Track
from data_prep.video.compose import aligned_at
from tests.data.painted_clips import png, write_records

CLIP = "Ann/neutral/s1"
SIZE = (144, 176)  # height, width
CLOCK = Fraction(1, 12800)
TIMES = (0, 512, 1024, 1300, 2000, 2512, 3024, 3536)
"""Ticks of the frames; uneven."""


@dataclasses.dataclass(frozen=True)
class ComposingClip:
    video: Path
    records: Path
    faces: Path
    landmarks: np.ndarray
    align: np.ndarray


def scene(number: int, size=SIZE) -> np.ndarray:
    """A textured picture of which no frame is like another."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x = x - 1.5 * number
    red = 128 + 60 * np.sin(x / 9) * np.cos(y / 13)
    green = 120 + 50 * np.cos((x + y) / 11)
    blue = 60 + 15 * number + 20 * np.sin(y / 7)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)


def face_landmarks(frames: int, *, size=SIZE, shift=(0.0, 0.0), scale=0.5, turn=0.1) -> np.ndarray:
    """Landmarks of a face of the template's form that moves to the right."""
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([size[1] / 2, size[0] / 2]) + shift
    points = (TEMPLATE - 128) @ rotation.T + middle
    return points[None] + np.array([1.5, 0.3]) * np.arange(frames)[:, None, None]


def write_scene(path: Path, *, times=TIMES, size=SIZE, sound: str | None = "aac", start_s=0.0, **how: str):
    """Writes a video; its sound begins with it."""
    codec, pix_fmt = how.get("codec", "libx264"), how.get("pix_fmt", "yuv420p")
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        options = {"crf": "10", "preset": "ultrafast"} if codec == "libx264" else {}
        video = container.add_stream(codec, rate=25, options=options)
        video.height, video.width = size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = CLOCK
        audio = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        for number, ticks in enumerate(times):
            frame = av.VideoFrame.from_ndarray(scene(number, size), format="rgb24")
            frame.time_base, frame.pts, frame.duration = CLOCK, ticks + round(start_s / CLOCK), 512
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            samples = (3000 * rng.standard_normal((1, 6 * 1024))).astype(np.int16)
            for first in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(samples[:, first : first + 1024], format="s16", layout="mono")
                frame.sample_rate, frame.pts = 16000, first + round(16000 * start_s)
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def make_clip(
    folder: Path,
    *,
    video: Path | None = None,
    face_size: int = 256,
    flags: dict[int, int] | None = None,
    **face: object,
) -> ComposingClip:
    """Writes a clip; its rendered faces are the aligned source frames, black outside the outline."""
    folder.mkdir(parents=True, exist_ok=True)
    video = video or write_scene(folder / "source.mp4")
    frames = list(read_frames(video))
    height, width = frames[0].image.shape[:2]
    landmarks = face_landmarks(len(frames), size=(height, width), **face)
    align = alignment_matrices(landmarks)
    flags = flags or {}
    alpha = png(np.full((256, 256), 255, np.uint8))
    rows = {
        number: {
            "aligned_landmarks": moved(landmarks[number], align[number]).astype(np.float32),
            "aligned_alpha_image": alpha,
            "flags": flags.get(number, 0),
        }
        for number in range(len(frames))
    }
    records = write_records(folder / "records", {CLIP: rows})
    track = Track(
        frame_index=np.arange(len(frames)),
        time_s=np.array([frame.time_s for frame in frames]),
        landmarks=landmarks.astype(np.float32),
        readable=np.ones(len(frames), bool),
        size=(height, width),
    )
    (records / "tracks").mkdir()
    track.save(
        records / "tracks" / f"{clip_file_name(CLIP)}.npz",
        flags=np.array([flags.get(number, 0) for number in range(len(frames))], np.uint8),
        align_transforms=align,
    )
    faces = folder / "faces"
    faces.mkdir()
    for frame in frames:
        face_image = aligned_face(frame.image, landmarks[frame.index], align[frame.index], face_size)
        Image.fromarray(face_image).save(faces / f"{frame.index:06d}.png")
    return ComposingClip(video, records, faces, landmarks, align)


def aligned_face(image: np.ndarray, landmarks: np.ndarray, align: np.ndarray, size: int) -> np.ndarray:
    """An aligned frame, black outside the outline."""
    matrix = aligned_at(align, size)
    drawn = face_outline(moved(landmarks, matrix), (size, size))
    return np.where(drawn[..., None], np.maximum(warped(image, None, matrix, size, sharp=True), 1), 0).astype(np.uint8)


def pictures(path: Path) -> list[np.ndarray]:
    return [frame.image for frame in read_frames(path)]


def times_s(path: Path) -> list[Fraction]:
    """Presentation time of every frame, exactly."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio) if container.streams.audio else iter(())
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets if packet.size]


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float64) - second) ** 2)))
