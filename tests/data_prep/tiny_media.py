"""Tiny videos, voices and landmark files for the tests of data preparation."""

import csv
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_prep.decode import SAMPLE_RATE

SIZE = 64


def picture(number, size=SIZE):
    """A smooth picture that differs from number to number, bright in its upper left corner."""
    y, x = np.mgrid[:size, :size] / size
    image = np.stack([x * 160, y * 160, np.full_like(x, (number * 23) % 200)], axis=-1)
    image[: size // 4, : size // 4] = 255
    return image.astype(np.uint8)


def face_points(size=SIZE):
    """68 points of a face in the middle of the picture."""
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return (size / 2 + size * 0.25 * np.stack([np.cos(angle), 1.1 * np.sin(angle)], axis=1)).astype(np.float32)


def write_landmarks(path, frames, *, size=SIZE, missing=(), key="landmarks68"):
    points = np.repeat(face_points(size)[None], frames, axis=0)
    points[list(missing)] = np.nan
    np.savez(path, **{key: points})


def write_video(path, frames=12, *, fps=30, samples=None, times=None, options=None, size=SIZE, first=0):
    """Writes an h264 (and aac) file; `times`, in frames, make the frame rate variable."""
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "ultrafast", "g": "4"})
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        audio = None
        if samples is not None:
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number, size), format="rgb24")
            frame.time_base = Fraction(1, fps)
            frame.pts = times[number] if times else number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _write_samples(container, audio, samples)
    return path


def write_sound(path, samples):
    with av.open(str(path), "w") as container:
        codec = "pcm_s16le" if path.suffix == ".wav" else "aac"
        _write_samples(container, container.add_stream(codec, rate=SAMPLE_RATE, layout="mono"), samples)
    return path


def _write_samples(container, stream, samples):
    for first in range(0, len(samples), 1024):
        block = (samples[None, first : first + 1024] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = first
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def turn_upright(path, quarter_turns):
    """Rewrites the display matrix of an mp4 so that players turn its picture clockwise."""
    matrices = {
        1: (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30),
        2: (-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30),
    }
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    content[start : start + 36] = struct.pack(">9i", *matrices[quarter_turns])
    path.write_bytes(bytes(content))


def voice(sentence, *, tempo=None, pitch_hz=120.0, fps=30, pauses=(0.2, 0.2)):
    """A humming voice with two formants.

    Returns samples, and the moment of the sentence (in its untempered time) at the middle of each video frame.
    """
    rng = np.random.default_rng(sentence)
    vowels = rng.uniform([300, 900, 0.2], [850, 2400, 1.0], (9, 3))
    lengths = rng.uniform(0.09, 0.25, 9)
    sung = lengths if tempo is None else lengths * np.exp(0.22 * np.random.default_rng(tempo).standard_normal(9))
    middles = np.cumsum(sung) - sung / 2
    own_middles = np.cumsum(lengths) - lengths / 2
    total_s = sung.sum() + sum(pauses)
    frames = int(total_s * fps)
    time_s = np.arange(int(frames / fps * SAMPLE_RATE)) / SAMPLE_RATE - pauses[0]
    first, second, loud = (np.interp(time_s, middles, column) for column in vowels.T)
    sample = np.zeros(len(time_s))
    phase = 2 * np.pi * np.cumsum(np.full(len(time_s), pitch_hz)) / SAMPLE_RATE
    for harmonic in range(1, 30):
        hertz = harmonic * pitch_hz
        gain = 1 / (1 + ((hertz - first) / 90) ** 2) + 0.6 / (1 + ((hertz - second) / 140) ** 2)
        sample += gain * np.sin(harmonic * phase)
    sample *= loud * ((time_s > 0) & (time_s < sung.sum()))
    sample += 1e-4 * rng.standard_normal(len(sample))
    moments = np.interp((np.arange(frames) + 0.5) / fps - pauses[0], middles, own_middles)
    return (0.6 * sample / np.abs(sample).max()).astype(np.float32), moments


def write_clip(folder, name, *, sentence=1, tempo=None, frames=None, **options):
    """Writes NAME.mp4, a talking picture, and NAME.npz, its landmarks."""
    samples, moments = voice(sentence, tempo=tempo)
    count = len(moments) if frames is None else frames
    write_video(folder / f"{name}.mp4", count, samples=samples, **options)
    write_landmarks(folder / f"{name}.npz", count)
    return folder / f"{name}.mp4"


def write_table(path, rows, columns=("path", "speaker", "emotion", "sentence", "split", "take")):
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(dict(zip(columns, row, strict=False)) for row in rows)
    return path
