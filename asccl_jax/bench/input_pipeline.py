"""Speed of the input pipeline: images a second and core, from records to batches of uint8 on the host."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from asccl_jax.bench.harness import Report, align, describe_machine
from asccl_jax.data.dataset import begin_dataset, finish_dataset, write_frame_shard
from asccl_jax.data.loader import training_batches
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.schema import ClipPairRecord, FrameRecord
from asccl_jax.errors import InputError

__all__ = ["add_arguments", "run", "write_random_records"]

_SIZES = (224, 512)
_FRAMES = 64
_DESCRIPTION = """
Reads shuffled training batches: read, check, parse, decode, batch. The figure to judge by is images a processor second,
which other users of the machine hardly change.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench input`."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="data set (default: made-up ones of 224 and 512 px)"
    )
    parser.add_argument("--split", default="train", help="its split (default: train)")
    parser.add_argument("--size", type=int, action="append", help="side of made-up images in pixels (repeatable)")
    parser.add_argument("--batch", type=int, default=8, help="pairs a batch (default: 8)")
    parser.add_argument("--images", type=int, default=1000, help="images a round (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--threads", type=int, default=4, help="threads that read and decode (default: 4)")


def run(options: argparse.Namespace) -> Report:
    """Measures and returns the report.

    Raises:
      InputError: The data set cannot be read, or an option is out of range.
    """
    for name in ("batch", "images", "rounds"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}={getattr(options, name)}: expected at least 1")
    machine = describe_machine(options.threads)
    rows = []
    if options.records is not None:
        rows.append(_measure(options.records, options))
    else:
        for size in options.size or _SIZES:
            with tempfile.TemporaryDirectory() as directory:
                write_random_records(Path(directory), image_size=size)
                rows.append(_measure(Path(directory), options))
    data = {"benchmark": "input", "machine": machine, "batch": options.batch, "rows": rows}
    return Report(_text(data), data)


def write_random_records(directory: Path, *, image_size: int, frames: int = _FRAMES, seed: int = 0) -> None:
    """Writes a data set of one neutral and one emotional clip whose images are as costly to decode as detailed photos.

    Args:
      directory: Where to write.
      image_size: Side of the images in pixels.
      frames: Frames of each clip.
      seed: Seed of the images.
    """
    random = np.random.default_rng(seed)
    clips = {emotion: f"bench/{emotion}/0" for emotion in ("neutral", "happy")}
    begin_dataset(directory)
    records = (
        FrameRecord(
            image=simplejpeg.encode_jpeg(
                _photo(random, image_size), quality=95, colorspace="RGB", colorsubsampling="420"
            ),
            speaker="bench",
            emotion=emotion,
            sentence="0",
            clip=clip,
            frame=frame,
            time_s=frame / 30,
            landmarks=np.zeros((68, 2), np.float32),
            crop_box=np.array([0, 0, image_size, image_size], np.float32),
        )
        for emotion, clip in clips.items()
        for frame in range(frames)
    )
    pair = ClipPairRecord(
        query_clip=clips["neutral"],
        key_clip=clips["happy"],
        speaker="bench",
        sentence="0",
        query_emotion="neutral",
        key_emotion="happy",
        query_frame=np.arange(frames),
        key_frame=np.arange(frames),
        cost=0.0,
    )
    shard = write_frame_shard(directory, "train", 0, 1, records)
    finish_dataset(directory, name="bench", shards=[shard], pairs={"train": [pair]})


def _photo(random: np.random.Generator, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Returns soft random shapes under noise: as JPEG some 115 kB at 512 pixels and 36 kB at 224, like sharp photos."""
    coarse = random.uniform(40, 215, (size // 16 + 2, size // 16 + 2, 3))
    places = np.arange(size) / 16
    first, share = places.astype(int), places % 1
    rows = coarse[first] * (1 - share)[:, None, None] + coarse[first + 1] * share[:, None, None]
    smooth = rows[:, first] * (1 - share)[None, :, None] + rows[:, first + 1] * share[None, :, None]
    noise = random.normal(0, 4 * (512 / size) ** 0.7, (size, size, 1))  # fewer pixels hold more detail each
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def _measure(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    pairs = FramePairs(directory, options.split)
    batches = training_batches(pairs, batch_size=options.batch, seed=0, threads=options.threads)
    count = max(1, options.images // (2 * options.batch))
    try:
        _take(batches, count=4)  # starts the threads and fills what is read ahead
        turns = [_take(batches, count=count) for _ in range(options.rounds)]
    finally:
        batches.close()
    images = 2 * options.batch * count
    records = np.unique([pairs.query_records, pairs.key_records])[:50]
    return {
        "records": str(directory) if options.records else "made up",
        "image_size": pairs.frames.image_size,
        "bytes_an_image": float(np.mean([len(pairs.frames[int(record)].image) for record in records])),
        "images_a_round": images,
        "wall_s": [wall for wall, _ in turns],
        "cpu_s": [cpu for _, cpu in turns],
        "images_per_cpu_s": images / statistics.median(cpu for _, cpu in turns),
        "images_per_wall_s": images / statistics.median(wall for wall, _ in turns),
    }


def _take(batches: Iterator[Any], *, count: int) -> tuple[float, float]:
    """Returns wall and processor seconds of taking some batches."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - wall, time.process_time() - cpu


def _text(data: dict[str, Any]) -> str:
    machine = data["machine"]
    header = ["records", "pixels", "kB an image", "images / processor s", "images / wall s"]
    cells = [
        [
            row["records"],
            str(row["image_size"]),
            f"{row['bytes_an_image'] / 1e3:.0f}",
            f"{row['images_per_cpu_s']:.0f}",
            f"{row['images_per_wall_s']:.0f}",
        ]
        for row in data["rows"]
    ]
    lines = [
        f"training batches of {data['batch']} pairs, {machine['threads']} threads; {machine['processor']},"
        f" {machine['cores']} cores, load {machine['load_before']:.1f} before",
        "",
        *align([header, *cells]),
    ]
    return "\n".join(lines) + "\n"
