"""A tiny data set of drawn faces: speech opens the mouth, emotion moves brows and mouth corners."""

from pathlib import Path

import numpy as np
import simplejpeg

from asccl_jax.data.dataset import extend_dataset, finish_dataset, write_frame_shard
from asccl_jax.data.schema import ClipPairRecord, ComparisonRecord, FrameRecord

SIZE = 48
FRAMES = 20


def face(speaker: int, opening: float, *, brow: float = 0.0) -> np.ndarray:
    """A face whose mouth is `opening` pixels high and whose brows are raised by `brow` pixels."""
    rng = np.random.default_rng(speaker)
    texture = 12 * rng.normal(size=(SIZE // 4, SIZE // 4, 1)).repeat(4, 0).repeat(4, 1)
    texture += 6 * rng.normal(size=(SIZE, SIZE, 1))
    image = np.full((SIZE, SIZE, 3), (200.0, 160.0, 130.0)) + texture - 20 * speaker
    rows, columns = np.mgrid[:SIZE, :SIZE]
    mouth = ((columns - 24) / 9) ** 2 + ((rows - 35) / (1.5 + opening)) ** 2 < 1
    image[mouth] = (120, 40, 40)
    for x in (15, 33):
        image[(abs(columns - x) < 5) & (abs(rows - 7 + brow) < 1.5)] = (60, 40, 30)
        image[(abs(columns - x) < 3) & (abs(rows - 13) < 2)] = (20, 20, 20)
    return np.clip(image, 0, 255).astype(np.uint8)


def landmarks(opening: float) -> np.ndarray:
    """68 points: eyes at (15, 13) and (33, 13), lips on an ellipse as high as the mouth is open."""
    points = np.full((68, 2), 24.0, np.float32)
    points[36:42], points[42:48] = (15, 13), (33, 13)
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points[48:68] = np.stack([24 + 9 * np.cos(angle), 35 + (1.5 + opening) * np.sin(angle)], axis=1)
    return points


def opening_at(frame: int, sentence: int) -> float:
    return 3 + 3 * float(np.sin(0.7 * frame + 2 * sentence))


def record(clip: str, frame: int, image: np.ndarray, opening: float) -> FrameRecord:
    speaker, emotion, sentence = clip.split("/")[:3]
    return FrameRecord(
        image=simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95, colorspace="RGB"),
        speaker=speaker,
        emotion=emotion,
        sentence=sentence,
        clip=clip,
        frame=frame,
        time_s=frame / 30,
        landmarks=landmarks(opening),
        crop_box=np.array([0, 0, SIZE, SIZE], np.float32),
    )


def clip_frames(clip: str, speaker: int, sentence: int, *, frames: int = FRAMES) -> list[FrameRecord]:
    brow = 0.0 if "/neutral/" in clip else 3.0
    openings = [opening_at(frame, sentence) for frame in range(frames)]
    return [record(clip, i, face(speaker, opening, brow=brow), opening) for i, opening in enumerate(openings)]


def write_records(
    directory: Path, *, with_pairs: bool = True, with_comparisons: bool = True, frames: int = FRAMES
) -> Path:
    """Writes splits "train" (speakers 0, 1), "validation" (2, 3) and, if asked for, "comparisons"."""
    directory.mkdir(parents=True)
    shards, pairs = [], {}
    for split, speakers in (("train", (0, 1)), ("validation", (2, 3))):
        clips = [(f"P{s}/{e}/s{n}", s, n) for s in speakers for e in ("happy", "neutral") for n in (0, 1)]
        found = [frame for clip in clips for frame in clip_frames(*clip, frames=frames)]
        shards.append(write_frame_shard(directory, split, 0, 1, found))
        pairs[split] = [pair(f"P{s}/neutral/s{n}", f"P{s}/happy/s{n}", frames) for s in speakers for n in (0, 1)]
    finish_dataset(directory, name="drawn faces", shards=shards, pairs=pairs if with_pairs else None)
    if with_comparisons:
        extend_dataset(directory, "comparisons", *controlled())
    return directory


def pair(query: str, key: str, frames: int) -> ClipPairRecord:
    speaker, query_emotion, sentence = query.split("/")
    return ClipPairRecord(
        query_clip=query,
        key_clip=key,
        speaker=speaker,
        sentence=sentence,
        query_emotion=query_emotion,
        key_emotion=key.split("/")[1],
        query_frame=np.arange(frames),
        key_frame=np.arange(frames),
        cost=0.0,
    )


def controlled(groups: int = 6) -> tuple[list[FrameRecord], list[ComparisonRecord]]:
    frames, comparisons = [], []
    for group in range(groups):
        speaker, other = (2, 3) if group % 2 else (3, 2)
        same = 1.0 + 0.5 * group
        keys = {
            "matched": (speaker, same, 3.0),
            "other_speech": (speaker, same + 5, 3.0),
            "small_speech_change": (speaker, same + 1, 3.0),
            "neutral_same_speech": (speaker, same, 0.5),
            "neutral_other_speech": (speaker, same + 5, 0.5),
            "brow_only": (speaker, same, 4.0),
            "other_identity_same_speech": (other, same, 3.0),
            "other_identity_other_speech": (other, same + 5, 3.0),
        }
        query = f"P{speaker}/neutral/cmp-{group}/query"
        frames.append(record(query, 0, face(speaker, same), same))
        for condition, (who, opening, brow) in keys.items():
            clip = f"P{who}/{'neutral' if 'neutral' in condition else 'happy'}/cmp-{group}/{condition}"
            frames.append(record(clip, 0, face(who, opening, brow=brow), opening))
            comparisons.append(
                ComparisonRecord(
                    group=group,
                    condition=condition,
                    query_clip=query,
                    query_frame=0,
                    key_clip=clip,
                    key_frame=0,
                    speaker=f"P{speaker}",
                    emotion="happy",
                    speech_distance=abs(opening - same),
                )
            )
    return frames, comparisons
