"""Tiny videos, voices and landmark files for the tests of data preparation."""

import csv
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_prep.media.decode import SAMPLE_RATE

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


def write_video(path, frames=12, *, fps=30, samples=None, times=None, options=None, size=SIZE, first=0, coder=None):
    """Writes an h264 (and aac) file; `times`, in frames, make the frame rate variable."""
    with av.open(str(path), "w", options=options or {}) as container:
        how = {"crf": "12", "preset": "ultrafast", "g": "4", **(coder or {})}
        video = container.add_stream("libx264", rate=fps, options=how)
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
            write_samples(container, audio, samples)
    return path


def write_sound(path, samples):
    with av.open(str(path), "w") as container:
        codec = "pcm_s16le" if path.suffix == ".wav" else "aac"
        write_samples(container, container.add_stream(codec, rate=SAMPLE_RATE, layout="mono"), samples)
    return path


def write_samples(container, stream, samples, rate=SAMPLE_RATE):
    for first in range(0, len(samples), 1024):
        block = (samples[None, first : first + 1024] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate = rate
        frame.pts = first
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def turn_upright(path, quarter_turns):
    """Rewrites the display matrix of an mp4 so that players turn its picture clockwise."""
    return set_matrix(path, {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1)}[quarter_turns])


def set_matrix(path, matrix):
    """Rewrites the display matrix of an mp4: x' = a x + c y, y' = b x + d y for (a, b, c, d)."""
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    return path


def remux(source, target, *, shift_s=0.0, dropped=lambda packet: False, options=None):
    """Copies packets, later by `shift_s`: in an mp4, what then lies before 0 is hidden by an edit list."""
    with av.open(str(source)) as given, av.open(str(target), "w", options=options or {}) as made:
        tracks = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is None or dropped(packet):
                continue
            shift = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = tracks[packet.stream_index]
            made.mux(packet)
    return target


def write_pcm(path, blocks, *, rate=SAMPLE_RATE, layout="mono", pictures=0):
    """Writes sound as it is, of blocks of 50 ms: the time in seconds and the value of each."""
    with av.open(str(path), "w") as container:
        video = _picture_track(container) if pictures else None
        sound = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        container.start_encoding()
        for number in range(pictures):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        if video is not None:
            container.mux(video.encode(None))
        channels = sound.codec_context.channels
        for time_s, value in blocks:
            packet = av.Packet(np.full(rate // 20 * channels, round(value * 32768), np.int16).tobytes())
            packet.stream, packet.time_base = sound, Fraction(1, rate)
            packet.pts = packet.dts = round(time_s * rate)
            container.mux(packet)
    return path


def _picture_track(container, fps=20):
    video = container.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "ultrafast"})
    video.width = video.height = SIZE
    video.pix_fmt = "yuv420p"
    return video


def ball(moment, size=SIZE):
    """A soft bright disc that has moved to the right by so many pixels."""
    y, x = np.mgrid[:size, :size]
    disc = np.clip(size / 4 - np.hypot(x - size / 4 - moment, y - size / 2), 0, 4) / 4
    return np.repeat((40 + 180 * disc)[..., None], 3, axis=-1).astype(np.uint8)


def write_fields(path, frames=9, *, woven=True, options="tff=1"):
    """Writes pictures of the ball at 4 pixels a frame; woven, their lower fields are half a frame later."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "6", "x264-params": options})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        for number in range(frames):
            image = ball(4 * number)
            if woven:
                image[1::2] = ball(4 * number + 2)[1::2]
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
    return path


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
