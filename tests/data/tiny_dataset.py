"""A data set of a few flat images whose colour tells which frame it is, for the tests of whatever reads records."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from asccl_jax.data.dataset import ClipSource, begin_dataset, finish_dataset, write_frame_shard
from asccl_jax.data.manifest import Manifest
from asccl_jax.data.schema import ClipPairRecord, ComparisonRecord, FrameRecord, RenderRecord

SIZE = 16


def colour(clip: str, frame: int) -> tuple[int, int, int]:
    """Colour of a frame: red rises with the frame, green and blue follow from the clip."""
    return (frame * 7) % 256, sum(clip.encode()) % 200 + 20, len(clip) * 9 % 256


def frame_record(clip: str, frame: int, *, size: int = SIZE) -> FrameRecord:
    speaker, emotion, sentence = clip.split("/")[:3]
    image = np.broadcast_to(np.asarray(colour(clip, frame), np.uint8), (size, size, 3))
    return FrameRecord(
        image=simplejpeg.encode_jpeg(np.ascontiguousarray(image), 95, colorsubsampling="444"),
        speaker=speaker,
        emotion=emotion,
        sentence=sentence,
        clip=clip,
        frame=frame,
        time_s=frame / 25,
        landmarks=np.arange(136, dtype=np.float32).reshape(68, 2) + frame,
        crop_box=np.asarray([0, 0, size, size], np.float32),
    )


def render_record(clip: str, frame: int, *, detail: bool = False) -> RenderRecord:
    """A render whose pictures are the heads of PNG files and whose numbers tell the frame."""

    def png(side: int) -> bytes:
        return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + side.to_bytes(4, "big") * 2

    return RenderRecord(
        clip=clip,
        frame=frame,
        flags=0,
        nmfc_image=png(224),
        shape_image=png(224),
        detail_image=png(224) if detail else b"",
        alpha_image=png(224),
        aligned_image=b"a JPEG file",
        aligned_nmfc_image=png(256),
        aligned_shape_image=png(256),
        aligned_detail_image=png(256) if detail else b"",
        aligned_alpha_image=png(256),
        aligned_landmarks=np.full((68, 2), frame, np.float32),
        crop_transform=np.eye(3, dtype=np.float32),
        align_transform=np.eye(2, 3, dtype=np.float32),
        shape=np.full(100, frame, np.float32),
        exp=np.zeros(50, np.float32),
        pose=np.zeros(6, np.float32),
        cam=np.ones(3, np.float32),
        tex=np.zeros(0, np.float32),
        light=np.zeros(0, np.float32),
        detail=np.zeros(0, np.float32),
    )


def frame_records(clips: dict[str, Sequence[int]]) -> Iterator[FrameRecord]:
    return (frame_record(clip, frame) for clip, frames in clips.items() for frame in frames)


def clip_pair(query_clip: str, key_clip: str, path: Sequence[tuple[int, int]]) -> ClipPairRecord:
    query, key = np.asarray(path, np.int64).reshape(-1, 2).T
    speaker, query_emotion, sentence = query_clip.split("/")[:3]
    return ClipPairRecord(
        query_clip=query_clip,
        key_clip=key_clip,
        speaker=speaker,
        sentence=sentence,
        query_emotion=query_emotion,
        key_emotion=key_clip.split("/")[1],
        query_frame=query,
        key_frame=key,
        cost=0.5,
    )


def comparison(query: tuple[str, int], key: tuple[str, int], *, group: int = 0, condition: str = "matched"):
    return ComparisonRecord(
        group=group,
        condition=condition,
        query_clip=query[0],
        query_frame=query[1],
        key_clip=key[0],
        key_frame=key[1],
        speaker=query[0].split("/")[0],
        emotion=key[0].split("/")[1],
        speech_distance=0.25,
    )


def write_tiny_dataset(
    directory: Path,
    *,
    shards: dict[str, list[dict[str, Sequence[int]]]] | None = None,
    pairs: dict[str, list[ClipPairRecord]] | None = None,
    comparisons: dict[str, list[ComparisonRecord]] | None = None,
) -> Manifest:
    """Writes two speakers of two sentences for training and one, of a name beyond ASCII, for validation.

    Training has 37 aligned frame pairs in 4 clip pairs, no frame held and none dropped.
    """
    if shards is None:
        shards = {
            "train": [
                {
                    f"{speaker}/{emotion}/{sentence}": range(12)
                    for emotion in ("neutral", "happy")
                    for sentence in ("s1", "s2")
                }
                for speaker in ("A", "B")
            ],
            "validation": [{"Zoë 李/neutral/s1": range(12), "Zoë 李/sad/s1": [*range(5), *range(8, 12)]}],
        }
        pairs = {
            "train": [
                clip_pair(
                    f"{speaker}/neutral/{sentence}", f"{speaker}/happy/{sentence}", [(k, k) for k in range(length)]
                )
                for speaker, sentence, length in (("A", "s1", 12), ("A", "s2", 10), ("B", "s1", 9), ("B", "s2", 6))
            ],
            "validation": [clip_pair("Zoë 李/neutral/s1", "Zoë 李/sad/s1", [(k, k) for k in range(12)])],
        }
    begin_dataset(directory)
    entries = [
        write_frame_shard(directory, split, number, len(contents), frame_records(content))
        for split, contents in shards.items()
        for number, content in enumerate(contents)
    ]
    clips = [clip for contents in shards.values() for content in contents for clip in content]
    return finish_dataset(
        directory,
        name="tiny",
        shards=entries,
        sources={clip: ClipSource(25.0, f"{clip}.mp4") for clip in clips},
        pairs=pairs,
        comparisons=comparisons,
        settings={"size": SIZE},
    )
