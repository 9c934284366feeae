"""One clip, from its files to finished records: the unit of work of a preparation, and the unit of resuming it.

What is made of a clip lies in the work folder under the clip's name: `.tfrecord` (its frames), `.npz` (its sound at
each frame) and, written last, `.json` (what became of it). A clip whose `.json` bears the same key, a digest of the
settings and of the clip's files, is done.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import hashlib
import io
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.data.dataset import ShardEntry, write_frame_shard
from asccl_jax.data.manifest import ClipEntry, Shard
from asccl_jax.data.records import RecordSource, RecordWriter
from asccl_jax.data.schema import FrameRecord
from asccl_jax.errors import InputError
from asccl_jax.work import file_facts, write_atomically
from data_prep.media.audio import SpeechFeatures, frame_features
from data_prep.media.clips import Clip
from data_prep.media.crop import CropMode, UnusableFaceError, crop_face, encode_jpeg
from data_prep.media.decode import BrokenMediaError, Frame, extension_remark, read_frames, read_sound, resample_frames
from data_prep.media.landmarks import LandmarkBackend, LandmarkSettings

__all__ = [
    "ClipSettings",
    "ClipSpeech",
    "ClipStatus",
    "ShardTask",
    "WorkFolder",
    "assemble_shard",
    "plan_shards",
    "prepare_clip",
]

PREPARATION_VERSION = 2
"""Raised when the same clip and settings give other records, so that old work is not taken up."""

_CHUNK = 16  # Frames held in memory at once.

_DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How every clip is prepared.

    Attributes:
      image_size: Side of the stored crops in pixels.
      crop: See `crop.crop_face`.
      fps: Constant frame rate to which clips are resampled, or None to keep every frame.
      image_fps: Frame rate of folders of images.
      max_frames: Frames after which a clip is cut off, or None.
      landmarks: Where the landmarks come from.
    """

    image_size: int = 224
    crop: CropMode = "corrected"
    fps: float | None = None
    image_fps: float = 30.0
    max_frames: int | None = None
    landmarks: LandmarkSettings = dataclasses.field(default_factory=LandmarkSettings)

    def __post_init__(self) -> None:
        """Checks what a user may have mistyped."""
        if not 16 <= self.image_size <= 4096:
            raise InputError(f"image size {self.image_size}: expected 16 to 4096 pixels")
        for name in ("fps", "image_fps", "max_frames"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name.replace('_', ' ')} {value}: expected more than 0")


@dataclasses.dataclass(frozen=True)
class ClipStatus:
    """What became of a clip.

    Attributes:
      clip_id: The clip.
      key: Digest of settings and files; tells whether this is the status of the clip as it is now.
      problem: Why the clip is dropped, or None.
      remarks: Reservations with which it is kept.
      kept: Frames in the records.
      dropped: Frames left out, counted by reason.
      fps: Mean frame rate.
      record_bytes: Size of the clip's records.
      has_sound: Whether it can be aligned.
    """

    clip_id: str
    key: str
    problem: str | None = None
    remarks: tuple[str, ...] = ()
    kept: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    fps: float = 0.0
    record_bytes: int = 0
    has_sound: bool = False


@dataclasses.dataclass(frozen=True)
class ClipSpeech:
    """A clip's sound and which frames it belongs to.

    Attributes:
      speech: Features of every decoded frame, kept or not, in thirds of frames.
      frames: Number of each of these frames.
    """

    speech: SpeechFeatures
    frames: Int[np.ndarray, " t"]


@dataclasses.dataclass(frozen=True)
class WorkFolder:
    """Where the intermediate files of a run lie; any number of processes may write to it.

    Attributes:
      path: The folder.
    """

    path: Path

    def records(self, clip: Clip) -> Path:
        """Returns where the clip's frames lie."""
        return self.path / "clips" / f"{clip.file_name}.tfrecord"

    def status_path(self, clip: Clip) -> Path:
        """Returns where the clip's status lies."""
        return self.path / "clips" / f"{clip.file_name}.json"

    def mark_path(self, clip: Clip) -> Path:
        """Returns the file that is there while the clip is under way, and stays if its process dies."""
        return self.path / "clips" / f"{clip.file_name}.started"

    def status(self, clip: Clip, key: str | None = None) -> ClipStatus | None:
        """Returns the clip's status if it is there (and, where a key is given, of that key)."""
        try:
            fields = json.loads(self.status_path(clip).read_text())
            status = ClipStatus(**{**fields, "remarks": tuple(fields["remarks"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return status if key in (None, status.key) else None

    def write_status(self, clip: Clip, status: ClipStatus) -> None:
        """Writes the clip's status."""
        write_atomically(self.status_path(clip), json.dumps(dataclasses.asdict(status), indent=1))

    def speech(self, clip: Clip) -> ClipSpeech:
        """Returns the clip's sound."""
        with np.load(self.records(clip).with_suffix(".npz"), allow_pickle=False) as archive:
            speech = SpeechFeatures(features=archive["features"], silent=archive["silent"])
            return ClipSpeech(speech=speech, frames=archive["frames"])

    def write_speech(self, clip: Clip, speech: ClipSpeech) -> None:
        """Writes the clip's sound."""
        buffer = io.BytesIO()
        np.savez(buffer, features=speech.speech.features, silent=speech.speech.silent, frames=speech.frames)
        write_atomically(self.records(clip).with_suffix(".npz"), buffer.getvalue())


def clip_key(clip: Clip, settings: ClipSettings) -> str:
    """Returns a digest of all that the clip's records depend on."""
    described = {
        "version": PREPARATION_VERSION,
        "clip": dataclasses.asdict(clip),
        "settings": dataclasses.asdict(settings),
        "files": file_facts(clip.video, clip.audio, clip.landmarks),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def prepare_clip(clip: Clip, settings: ClipSettings, backend: LandmarkBackend, work: WorkFolder) -> ClipStatus:
    """Prepares one clip in the work folder, unless that is done, and returns what became of it.

    Whatever is wrong with the clip ends up in its status; only a full or unwritable disk raises.
    """
    key = clip_key(clip, settings)
    done = work.status(clip, key)
    if done is not None:
        return done
    work.mark_path(clip).touch()
    try:
        status = _write_clip(clip, key, settings, backend, work)
    except BrokenMediaError as error:
        status = ClipStatus(clip.clip_id, key, problem=str(error))
    except Exception as error:
        # The boundary at which a clip is given up: one odd file must not cost a day's run. It is named in the report.
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        _LOG.exception("clip %s", clip.clip_id)
        status = ClipStatus(clip.clip_id, key, problem=f"unexpected {type(error).__name__}: {error}")
    work.write_status(clip, status)
    work.mark_path(clip).unlink(missing_ok=True)
    return status


def _write_clip(clip: Clip, key: str, settings: ClipSettings, backend: LandmarkBackend, work: WorkFolder) -> ClipStatus:
    shown = _Shown(read_frames(clip.video, image_fps=settings.image_fps))
    frames = iter(shown) if settings.fps is None else resample_frames(shown, settings.fps)
    times_s, numbers = [], []
    kept, dropped = 0, collections.Counter[str]()
    with RecordWriter(work.records(clip)) as writer:
        for chunk in _chunks(itertools.islice(frames, settings.max_frames)):
            landmarks = backend.landmarks68(chunk, clip)
            for frame, points in zip(chunk, landmarks, strict=True):
                times_s.append(frame.time_s)
                numbers.append(frame.index)
                try:
                    record = _frame_record(clip, frame, points, settings)
                except UnusableFaceError as reason:
                    dropped[str(reason)] += 1
                    continue
                writer.write(record.encode())
                kept += 1
        backend.check_count(shown.count, clip)
        if not kept:
            raise BrokenMediaError(f"{' or '.join(dropped) or 'no picture'}, in all {len(numbers)} frames")
    remarks = [extension_remark(clip.video) if clip.video.is_file() else None]
    sound = _write_sound(clip, np.array(times_s), np.array(numbers), work)
    remarks.append(sound)
    return ClipStatus(
        clip_id=clip.clip_id,
        key=key,
        remarks=tuple(remark for remark in remarks if remark is not None),
        kept=kept,
        dropped=dict(sorted(dropped.items())),
        fps=_mean_fps(times_s),
        record_bytes=work.records(clip).stat().st_size,
        has_sound=sound is None,
    )


class _Shown:
    """The frames of a clip's source, counted."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames, self._count = frames, 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self._count = frame.source_index + 1
            yield frame

    def count(self) -> int:
        """Returns how many there are, reading on to the end."""
        for _ in self:
            pass
        return self._count


def _frame_record(clip: Clip, frame: Frame, points: Float[np.ndarray, "68 2"], settings: ClipSettings) -> FrameRecord:
    if frame.image is None:
        raise UnusableFaceError("unreadable picture")
    face = crop_face(frame.image, points, size=settings.image_size, mode=settings.crop)
    return FrameRecord(
        image=encode_jpeg(face.image),
        speaker=clip.speaker,
        emotion=clip.emotion,
        sentence=clip.sentence,
        clip=clip.clip_id,
        frame=frame.index,
        time_s=frame.time_s,
        landmarks=face.landmarks,
        crop_box=face.box,
    )


def _write_sound(
    clip: Clip, times_s: Float[np.ndarray, " t"], frames: Int[np.ndarray, " t"], work: WorkFolder
) -> str | None:
    """Writes the clip's sound; returns why it cannot be paired, or None."""
    try:
        if clip.audio is None and clip.video.is_dir():
            raise BrokenMediaError("no audio file")
        speech = frame_features(read_sound(clip.audio or clip.video), times_s)
    except BrokenMediaError as error:
        return f"{error}: in no pair"
    if speech.silent.all():
        return "silent audio track: in no pair"
    work.write_speech(clip, ClipSpeech(speech=speech, frames=frames))
    return None


def _chunks(frames: Iterator[Frame]) -> Iterator[Sequence[Frame]]:
    while chunk := list(itertools.islice(frames, _CHUNK)):
        yield chunk


def _mean_fps(times_s: Sequence[float]) -> float:
    span = times_s[-1] - times_s[0]
    return round((len(times_s) - 1) / span, 4) if span > 0 else 0.0


# Prepared clips into shards: the same bytes however many workers there were and however often a run was resumed.


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be written.

    Attributes:
      output: Directory of the data set.
      work: Where the prepared clips lie.
      split: Split of the shard.
      number: Its number in the split.
      count: Shards of the split.
      clips: Its clips, in the order of their ids.
      keys: Key of each clip's status: with the sentences, all that the shard depends on.
    """

    output: Path
    work: WorkFolder
    split: str
    number: int
    count: int
    clips: tuple[Clip, ...]
    keys: tuple[str, ...]

    @property
    def result_path(self) -> Path:
        """Where the shard's description lies once it is written."""
        return self.work.path / "shards" / f"{self.split}-{self.number:05d}.json"

    @property
    def key(self) -> str:
        """Digest of all that the shard depends on."""
        parts = [self.split, self.number, self.count, *self.keys, *(clip.sentence for clip in self.clips)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def result(self) -> ShardEntry | None:
        """Returns the shard's description if it has been written as this task wants it."""
        try:
            fields = json.loads(self.result_path.read_text())
        except (OSError, ValueError):
            return None
        if fields["key"] != self.key or not (self.output / fields["entry"]["shard"]["name"]).is_file():
            return None
        entry = fields["entry"]
        clips = {name: ClipEntry.from_fields(clip) for name, clip in entry["clips"].items()}
        return ShardEntry(**{**entry, "shard": Shard(**entry["shard"]), "clips": clips})


def plan_shards(
    clips: Sequence[Clip],
    statuses: Mapping[str, ClipStatus],
    splits: Mapping[str, str],
    *,
    output: Path,
    work: WorkFolder,
    shard_bytes: int,
) -> list[ShardTask]:
    """Returns the shards of all splits, filled one after the other with the clips in the order of their ids."""
    filled: dict[str, list[list[Clip]]] = collections.defaultdict(lambda: [[]])
    sizes: dict[str, int] = collections.defaultdict(int)
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        split, size = splits[clip.clip_id], statuses[clip.clip_id].record_bytes
        if filled[split][-1] and sizes[split] + size > shard_bytes:
            filled[split].append([])
            sizes[split] = 0
        filled[split][-1].append(clip)
        sizes[split] += size
    return [
        ShardTask(
            output=output,
            work=work,
            split=split,
            number=number,
            count=len(shards),
            clips=tuple(members),
            keys=tuple(statuses[clip.clip_id].key for clip in members),
        )
        for split, shards in sorted(filled.items())
        for number, members in enumerate(shards)
    ]


def assemble_shard(task: ShardTask) -> None:
    """Writes one shard and its description, unless that is done."""
    if task.result() is not None:
        return
    entry = write_frame_shard(task.output, task.split, task.number, task.count, _frames(task))
    description = {"key": task.key, "entry": dataclasses.asdict(entry)}
    write_atomically(task.result_path, json.dumps(description))


def _frames(task: ShardTask) -> Iterator[FrameRecord]:
    for clip in task.clips:
        for data in RecordSource([task.work.records(clip)]):
            # Sentences may have been told apart, by ear or by a list of pairs, after the clip was prepared.
            yield dataclasses.replace(FrameRecord.decode(data), sentence=clip.sentence)
