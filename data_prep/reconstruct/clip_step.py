"""Third step: a clip's codes, and its pictures in both kinds of coordinates; as many results as frames."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from asccl_jax.data.codes import CodeDict
from asccl_jax.image.warping import joined
from asccl_jax.infer.prefetch import prefetched
from asccl_jax.work import file_facts
from data_prep.head_fit.clip_fit import FLAG_MISSING, FLAG_PARTIAL, FLAG_POOR
from data_prep.head_fit.head_drawing import Renderer
from data_prep.head_fit.view import View
from data_prep.media.decode import BrokenMediaError
from data_prep.reconstruct.clip_inputs import InputClip
from data_prep.reconstruct.drawing import ALIGNED_SIZE, Drawn, alignment_matrices, draw, make_renderer
from data_prep.reconstruct.encoders import FLAG_UNREADABLE, ClipCodes, frames_of, make_encoder
from data_prep.reconstruct.folders import stored_codes
from data_prep.reconstruct.reconstruct_settings import EncoderSettings, TrackSettings
from data_prep.reconstruct.sinks import DrawnFrames, FolderSink, RecordSink, Sink
from data_prep.reconstruct.smoothing import fill_gaps, smooth_codes
from data_prep.reconstruct.sources import SourceFrame, chunks, read_source
from data_prep.reconstruct.speaker_step import load_shape
from data_prep.reconstruct.track_step import Track
from data_prep.reconstruct.work import Step, Task, WorkFolder, counted, digest, one_thread

__all__ = ["FLAG_MEANINGS", "ClipTask"]

FLAG_MEANINGS = {
    FLAG_MISSING: "no face found, interpolated",
    FLAG_PARTIAL: "some landmarks not found",
    FLAG_POOR: "fitted poorly",
    FLAG_UNREADABLE: "unreadable picture",
}
"""What each bit of a frame's flags says."""


@dataclasses.dataclass(frozen=True)
class Placing:
    """Where results go besides the work folder.

    Attributes:
      output: Directory of the data set, or of the subject.
      folders: Whether the published layout is written, rather than records.
      first: Number of the clip's first frame within the subject.
      train: Training folders.
    """

    output: Path
    folders: bool = False
    first: int = 0
    train: bool = False


@dataclasses.dataclass(frozen=True)
class ClipTask(Task):
    """Reconstructs a clip.

    Attributes:
      track_key: Key of the clip's track.
      speaker: Name and key of the speaker's shape in the work folder, or None to leave it to each frame.
      threads: Threads that draw.
    """

    item: InputClip
    track_key: str
    speaker: tuple[str, str] | None
    tracks: TrackSettings
    encoder: EncoderSettings
    placing: Placing
    work: WorkFolder
    threads: int = 1
    step: Step = "clips"

    @property
    def name(self) -> str:
        """The clip's file name."""
        return self.item.clip.file_name

    @functools.cached_property
    def key(self) -> str:
        """See `Task`."""
        placing = dataclasses.asdict(self.placing)
        assets = file_facts(self.encoder.assets)
        return digest(self.track_key, self.speaker, self.encoder.described(), assets, placing)

    def is_done(self) -> bool:
        """See `Task`; what lies in the output must be there, too."""
        status = self.work.status(self.step, self.name, self.key)
        if status is None:
            return False
        return status["problem"] is not None or self.codes_path.is_file()

    @property
    def codes_path(self) -> Path:
        """Where the clip's code dict lies."""
        return self.placing.output / "codes" / f"{self.name}.npz"

    def compute(self) -> dict[str, Any]:
        """Writes codes, track and pictures."""
        track = Track.load(self.work.file("tracks", self.name, ".npz"))
        found = self._codes(track)
        trusted = (found.flags & FLAG_MISSING) == 0
        codes = smooth_codes(found.codes, self.encoder.smooth, trusted=trusted)
        with self._sink(track) as sink:
            landmarks, align = self._draw(track, codes, found, sink)
        self.codes_path.parent.mkdir(parents=True, exist_ok=True)
        track_path = self.placing.output / "tracks" / f"{self.name}.npz"
        track_path.parent.mkdir(parents=True, exist_ok=True)
        track.save(
            track_path,
            flags=found.flags,
            residual_px=found.residual_px,
            filled_landmarks=landmarks.astype(np.float32),
            align_transforms=align,
            units_valid=np.array(found.units_valid),
        )
        codes.save(self.codes_path)
        return self._figures(track, found)

    def _codes(self, track: Track) -> ClipCodes:
        if self.item.kind == "folders":
            stored = stored_codes(self.item.clip.video)
            if stored is not None:
                return _from_stored(stored, track)
        shape = None
        if self.speaker is not None:
            shape = load_shape(self.work.file("speakers", self.speaker[0], ".npz"))
        frames = read_source(self.item, image_fps=self.tracks.image_fps, max_frames=self.tracks.max_frames)
        neutral = self.item.clip.emotion == "neutral"
        return make_encoder(self.encoder).encode(track, frames_of(frames, track), shape, neutral=neutral)

    def _sink(self, track: Track) -> Sink:
        if self.placing.folders:
            return FolderSink(self.item, track, self.placing.output, first=self.placing.first, train=self.placing.train)
        files = (self.work.file("clips", self.name, f".{kind}.tfrecord") for kind in ("frames", "renders"))
        return RecordSink(self.item, *files)

    def _draw(
        self, track: Track, codes: CodeDict, found: ClipCodes, sink: Sink
    ) -> tuple[Float[np.ndarray, "t 68 2"], Float[np.ndarray, "t 2 3"]]:
        """Draws the clip and returns its landmarks without gaps, and how it is aligned."""
        assert codes.tform is not None
        settings = self.encoder
        renderer = make_renderer(
            settings.assets,
            detail=codes.detail is not None,
            device=settings.device,
            batch=settings.batch,
            threads=self.threads,
        )
        to_source = np.linalg.inv(codes.tform.astype(np.float64))[:, :2]
        if track.found.any():
            landmarks = fill_gaps(track.landmarks.astype(np.float64), track.frame_index, track.found)
        else:
            with one_thread():  # the renderer may have loaded PyTorch just now
                landmarks = renderer.landmarks(codes).astype(np.float64)
            landmarks = landmarks @ to_source[:, :, :2].transpose(0, 2, 1) + to_source[:, None, :, 2]
        align = alignment_matrices(landmarks)
        crops = sink.crop_matrices(codes, landmarks)
        frames = read_source(self.item, image_fps=self.tracks.image_fps, max_frames=self.tracks.max_frames)
        shown = counted(frames_of(frames, track), "pictures", total=len(codes))
        views = [
            View((size, size), np.stack(list(map(joined, matrices, to_source))))
            for matrices, size in ((crops, sink.crop_size), (align, ALIGNED_SIZE))
        ]
        pictures = _drawn(renderer, codes, views, chunks(shown, settings.batch))
        done = 0
        # While files are compressed and written, a thread draws what comes next: a long clip is often the only one.
        for chunk, some, drawn in prefetched(pictures, depth=1):
            rows = slice(done, done + len(chunk))
            sink.write(DrawnFrames(list(chunk), some, found.flags[rows], landmarks[rows], align[rows], *drawn))
            done += len(chunk)
        if done != len(codes):
            raise BrokenMediaError(f"{done} frames where there were {len(codes)} before: the file has changed")
        return landmarks, align

    def _figures(self, track: Track, found: ClipCodes) -> dict[str, Any]:
        known = np.isfinite(found.residual_px)
        flagged = {text: int((found.flags & bit > 0).sum()) for bit, text in FLAG_MEANINGS.items()}
        size = 0
        if not self.placing.folders:
            files = (self.work.file("clips", self.name, f".{kind}.tfrecord") for kind in ("frames", "renders"))
            size = sum(path.stat().st_size for path in files)
        return {
            "frames": len(track.frame_index),
            "fps": track.fps,
            "flagged": {text: count for text, count in flagged.items() if count},
            "trusted": int((found.flags == 0).sum()),
            "residual_px": round(float(np.median(found.residual_px[known])), 3) if known.any() else None,
            "units_valid": found.units_valid,
            "notes": list(found.notes),
            "record_bytes": size,
            "first_number": self.placing.first,
            "codes": self.codes_path.name,
        }


def _drawn(
    renderer: Renderer, codes: CodeDict, views: Sequence[View], frames: Iterable[Sequence[SourceFrame]]
) -> Iterator[tuple[Sequence[SourceFrame], CodeDict, list[Drawn]]]:
    """Yields some frames at a time, their codes, and their pictures in each view."""
    done = 0
    with one_thread():  # it may be another one than that of the task
        for chunk in frames:
            rows = slice(done, done + len(chunk))
            some = [View(view.size, view.placement[rows]) for view in views]
            yield chunk, codes[rows], draw(renderer, codes[rows], some)
            done += len(chunk)


def _from_stored(codes: CodeDict, track: Track) -> ClipCodes:
    """The codes that a NED folder holds, for its images."""
    position = {number: row for row, number in enumerate(codes.frame_index.tolist())}
    missing = [number for number in track.frame_index.tolist() if number not in position]
    if missing:
        raise BrokenMediaError(f"DECA/ lacks frame {missing[0]:06d} and {len(missing) - 1} more of images/")
    if codes.tform is None:
        raise BrokenMediaError("its code dicts have no tform, so where their crops lie is not known")
    rows = [position[number] for number in track.frame_index.tolist()]
    flags = np.where(track.readable, 0, FLAG_UNREADABLE).astype(np.uint8)
    return ClipCodes(codes[rows], flags, np.full(len(rows), np.nan), notes=("codes as they were stored",))
