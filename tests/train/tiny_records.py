"""A data set small enough for any test: smooth random faces of two speakers, two emotions, known alignment."""

import numpy as np
import simplejpeg

from asccl_jax.data.dataset import begin_dataset, finish_dataset, write_frame_shard
from asccl_jax.data.schema import ClipPairRecord, FrameRecord

FRAMES = 12


SPEAKERS = {"train": ("A", "B"), "validation": ("C",)}


def write_tiny_records(directory, *, size=64, seed=0, sentences=("001", "002"), paired=True, speakers=SPEAKERS):
    """Writes the speakers of each split, one shard a split."""
    begin_dataset(directory)
    shards, pairs = [], {}
    for split, names in speakers.items():
        frames, pairs[split] = [], []
        for speaker in names:
            for sentence in sentences:
                clips = {}
                for emotion in ("neutral", "happy"):
                    clip = f"{speaker}/{emotion}/{sentence}"
                    clips[emotion] = clip
                    frames += [
                        frame_record(clip, number, size=size, seed=seed + zlib_number(clip) + number)
                        for number in range(FRAMES)
                    ]
                pairs[split].append(
                    ClipPairRecord(
                        query_clip=clips["neutral"],
                        key_clip=clips["happy"],
                        speaker=speaker,
                        sentence=sentence,
                        query_emotion="neutral",
                        key_emotion="happy",
                        query_frame=np.arange(FRAMES),
                        key_frame=np.arange(FRAMES),
                        cost=0.1,
                    )
                )
        shards.append(write_frame_shard(directory, split, 0, 1, frames))
    finish_dataset(directory, name="tiny", shards=shards, pairs=pairs if paired else None)
    return directory


def frame_record(clip, number, *, size, seed):
    speaker, emotion, sentence = clip.split("/")
    return FrameRecord(
        image=simplejpeg.encode_jpeg(smooth_image(size, seed), quality=90, colorspace="RGB"),
        speaker=speaker,
        emotion=emotion,
        sentence=sentence,
        clip=clip,
        frame=number,
        time_s=number / 30,
        landmarks=np.full((68, 2), size / 2, np.float32),
        crop_box=np.array([0, 0, size, size], np.float32),
    )


def smooth_image(size, seed):
    """A few random waves in colour: structure at all scales the network has, unlike noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    image = np.zeros((size, size, 3))
    for _ in range(6):
        frequency, phase, colour = random.normal(0, 4, 2), random.uniform(0, 6.28), random.normal(0, 40, 3)
        image += np.sin(6.28 * (frequency[0] * x + frequency[1] * y) + phase)[..., None] * colour
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def zlib_number(text):
    """A number that a text always gives, unlike `hash`."""
    return sum(ord(letter) * 131**place for place, letter in enumerate(text)) % 2**31
