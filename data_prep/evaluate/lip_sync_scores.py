"""LSE-D and LSE-C of a clip, in both forms, of frames that pass by a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from asccl_jax.errors import InputError
from data_prep.evaluate.landmark_sources import hash_of
from data_prep.evaluate.lip_sync import (
    SYNC_25FPS,
    SYNC_30FPS,
    WINDOW_FRAMES,
    LipSync,
    SyncProtocol,
    aligned_face_crops,
    face_boxes,
    lip_sync,
    lip_windows,
    nearest_frames,
    sound_columns,
    sound_windows,
    syncnet_crops,
    window_count,
)
from data_prep.evaluate.matching import from_first_picture
from data_prep.evaluate.score_cache import ScoreCache, digest
from data_prep.evaluate.video_features import SyncNetwork, VideoFeatures, frame_chunks
from data_prep.media.decode import Sound

__all__ = ["PROTOCOLS", "lip_sync_scores"]

PROTOCOLS = (SYNC_25FPS, SYNC_30FPS)

_CONTEXT = 6
"""Frames to either side that the smoothing of a face's box looks at."""

_SEGMENT_FRAMES, _SEGMENT_BYTES = 64, 1 << 27
_SOUND_CHUNK = 256

Picture = UInt8[np.ndarray, "h w 3"]
Crops = UInt8[np.ndarray, "n 224 224 3"]


def lip_sync_scores(
    video: Path, features: VideoFeatures, sound: Sound, sound_key: str, network: SyncNetwork, cache: ScoreCache
) -> tuple[dict[str, float], dict[str, str]]:
    """Returns LSE-D and LSE-C by metric, and why some are lacking.

    At 25 frames a second faces are cut as SyncNet's own programme cuts them, by their landmarks; in the authors' form
    the frame is the face, or the square that the other networks see.

    Args:
      video: The clip's video.
      features: What was read off it.
      sound: What is heard.
      sound_key: Fingerprint of the sound.
      network: SyncNet.
      cache: Where results are kept.
    """
    values: dict[str, float] = {}
    lacking: dict[str, str] = {}
    for protocol in PROTOCOLS:
        names = [f"lse_{letter}_{protocol.name}" for letter in "dc"]
        reason = _blind(features, protocol)
        if not reason:
            marks = "" if features.landmarks is None else hash_of(features.landmarks)
            key = digest(features.key, sound_key, network.key, protocol.name, marks, str(features.square))
            stored = cache.find("lip-sync", key)
            if stored is None:
                try:
                    found = _scored(video, features, sound, network, protocol)
                    stored = {"scores": np.array([found.lse_d, found.lse_c]), "remark": np.array("")}
                except InputError as error:
                    stored = {"scores": np.full(2, np.nan), "remark": np.array(str(error))}
                cache.store("lip-sync", key, stored)
            reason = str(stored["remark"])
            if not reason:
                values.update(zip(names, map(float, stored["scores"]), strict=True))
        if reason:
            lacking.update(dict.fromkeys(names, reason))
    return values, lacking


def _blind(features: VideoFeatures, protocol: SyncProtocol) -> str:
    if protocol is SYNC_25FPS:
        marks = features.landmarks
        seen = marks is not None and bool(np.isfinite(marks).all(axis=(1, 2)).any())
        return "" if seen else "no landmarks to find the face by"
    square = features.square is not None or features.width == features.height
    return "" if square else f"frames of {features.width} x {features.height} are no face crops: give --crop"


def _scored(
    video: Path, features: VideoFeatures, sound: Sound, network: SyncNetwork, protocol: SyncProtocol
) -> LipSync:
    rows = nearest_frames(features.times_s, protocol.rate_fps)
    columns = sound_columns(from_first_picture(sound), protocol)
    count = window_count(len(rows), len(columns))
    heard = sound_windows(columns, count).astype(np.float32)
    voices = [network.sound(heard[first : first + _SOUND_CHUNK]) for first in range(0, count, _SOUND_CHUNK)]
    lips: list[np.ndarray] = []
    carried: np.ndarray | None = None
    done = 0
    for crops in _crops(video, features, rows, protocol):
        seen = crops if carried is None else np.concatenate([carried, crops])
        fresh = min(len(seen) - WINDOW_FRAMES + 1, count - done)
        if fresh > 0:
            lips.append(np.asarray(network.lips(np.ascontiguousarray(lip_windows(seen, fresh)))))
            done += fresh
            carried = seen[fresh:]
        else:
            carried = seen
        if done == count:
            break
    return lip_sync(np.concatenate(lips), np.concatenate([np.asarray(voice) for voice in voices]))


def _crops(
    video: Path, features: VideoFeatures, rows: Int[np.ndarray, " n"], protocol: SyncProtocol
) -> Iterator[Crops]:
    """Yields what SyncNet sees of the given rows of a video, a segment at a time."""
    own = protocol is SYNC_25FPS
    boxes = _whole(face_boxes(features.landmarks)) if own and features.landmarks is not None else None
    context = _CONTEXT if own else 0
    size = max(4, min(_SEGMENT_FRAMES, _SEGMENT_BYTES // (3 * features.width * features.height)))
    held: list[Picture] = []
    first = start = 0  # number of held[0], and of the first frame of the segment
    for picture in _picked(video, rows):
        held.append(picture)
        last = first + len(held) == len(rows)
        while start < len(rows) and (last or first + len(held) >= min(len(rows), start + size + context)):
            stop = min(len(rows), start + size)
            end = min(len(rows), stop + context)
            pictures = held[: end - first]
            if boxes is not None:
                cut = syncnet_crops(pictures, boxes[rows[first:end]])
            elif features.square is not None:
                cut = aligned_face_crops(features.square.image(picture) for picture in pictures)
            else:
                cut = aligned_face_crops(pictures)
            yield cut[start - first : stop - first]
            start = stop
            keep = max(0, start - context)
            held, first = held[keep - first :], keep


def _picked(video: Path, rows: Int[np.ndarray, " n"]) -> Iterator[Picture]:
    """Yields the pictures of rising rows, some of them more than once."""
    place = row = 0
    for _, images in frame_chunks(video):
        for image in images:
            while place < len(rows) and rows[place] == row:
                yield image
                place += 1
            row += 1


def _whole(boxes: Float[np.ndarray, "t 4"]) -> Float[np.ndarray, "t 4"]:
    known = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    at = np.arange(len(boxes))
    return np.column_stack([np.interp(at, known, column[known]) for column in boxes.T])
