"""Windows of consecutive frames of coefficient tracks, in batches for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

from asccl_jax.data.loader import process_rows, read_options, shuffled_batches
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import COEFFICIENTS, NO_LABEL, CoefficientTrack
from asccl_jax.errors import InputError
from asccl_jax.types import WindowBatch

__all__ = ["CoefficientWindows", "window_batches"]


class CoefficientWindows:
    """Every window of consecutive, labelled frames of some tracks; a random access source of Grain.

    A window never crosses a missing frame, nor one without a label. Its emotion is the most frequent of its frames'
    labels, the first to occur of several.

    Args:
      tracks: Of which clips.
      split: Of which split; None for all.
      window: Frames of a window.
      hop: Frames from the beginning of a window to that of the next.
      reference_seed: Of the reference that `batch` gives each window where none is named.

    Attributes:
      tracks: The tracks that have windows.
      track_numbers: Position in `tracks` of each window's track.
      starts: Position in its track of each window's first frame.
      emotions: Emotion of each window, a position in `schema.EMOTIONS`.
      short_clips: Ids of clips left out as no labelled run of theirs is as long as a window.
      unlabelled_clips: Ids of clips left out as no frame of theirs is labelled.

    Raises:
      InputError: There is no window at all, or a size that makes no sense.
    """

    def __init__(
        self,
        tracks: Sequence[CoefficientTrack],
        split: str | None = None,
        *,
        window: int = 10,
        hop: int = 1,
        reference_seed: int = 0,
    ) -> None:
        if window < 1 or hop < 1:
            raise InputError(f"window={window}, hop={hop}: expected at least 1 frame")
        chosen = [track for track in tracks if split in (None, track.split)]
        found = [_window_starts(track, window, hop) for track in chosen]
        self.window = window
        self.unlabelled_clips = [track.clip for track in chosen if (track.labels == NO_LABEL).all()]
        self.short_clips = [
            track.clip
            for track, starts in zip(chosen, found, strict=True)
            if not starts.size and (track.labels != NO_LABEL).any()
        ]
        self.tracks = [track for track, starts in zip(chosen, found, strict=True) if starts.size]
        if not self.tracks:
            where = "" if split is None else f" of split {split!r}"
            raise InputError(
                f"no window of {window} consecutive labelled frames in {len(chosen)} clips{where}: "
                f"{len(self.short_clips)} are too short, {len(self.unlabelled_clips)} have no emotion"
            )
        kept = [starts for starts in found if starts.size]
        self.track_numbers = np.repeat(np.arange(len(kept)), [len(starts) for starts in kept])
        self.starts = np.concatenate(kept)
        # All tracks in one piece of memory: a batch is one gather.
        offsets = np.cumsum([0, *(len(track) for track in self.tracks)])
        self._coefficients = np.concatenate([track.coefficients for track in self.tracks])
        self._places = offsets[self.track_numbers] + self.starts
        self.emotions = _majority(np.concatenate([track.labels for track in self.tracks]), self._places, window)
        self._references = np.random.default_rng([0x8EF, reference_seed]).permutation(len(self)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one window: float32 `source` (t c), its `source_emotion` and `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {
            "source": self._windows(np.asarray([index]))[0],
            "source_emotion": np.asarray(self.emotions[index], np.int32),
            "index": np.asarray(index, np.int32),
        }

    def batch(
        self,
        indices: Sequence[int] | Int[np.ndarray, " b"],
        references: Sequence[int] | Int[np.ndarray, " b"] | None = None,
    ) -> WindowBatch:
        """Returns some windows as a batch of NumPy arrays.

        Args:
          indices: Windows to change.
          references: Windows whose style they may be given; None takes the same one for a window each time: that of a
            random permutation.
        """
        sources = self._checked(indices)
        others = self._references[sources] if references is None else self._checked(references)
        return WindowBatch(
            source=self._windows(sources),
            source_emotion=self.emotions[sources],
            reference=self._windows(others),
            reference_emotion=self.emotions[others],
            index=sources.astype(np.int32),
            reference_index=others.astype(np.int32),
        )

    def __repr__(self) -> str:
        return (
            f"CoefficientWindows({len(self)} windows of {self.window} frames in {len(self.tracks)} clips, "
            f"{len(self.short_clips)} clips too short, {len(self.unlabelled_clips)} without emotion)"
        )

    def describe(self) -> str:
        """Returns how many windows there are of each emotion, in one line."""
        counts = np.bincount(self.emotions, minlength=len(EMOTIONS)).tolist()
        return ", ".join(f"{emotion} {count:,}" for emotion, count in zip(EMOTIONS, counts, strict=True))

    def _checked(self, indices: Sequence[int] | Int[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        rows = np.asarray(indices, np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"windows {rows.min()} to {rows.max()} of {len(self)}")
        return rows

    def _windows(self, rows: Int[np.ndarray, " b"]) -> Float32[np.ndarray, "b t c"]:
        windows = self._coefficients[self._places[rows][:, None] + np.arange(self.window)]
        assert windows.shape == (len(rows), self.window, COEFFICIENTS)
        return windows


def window_batches(
    source: CoefficientWindows,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 0,
    prefetch: int = 4,
) -> grain.DatasetIterator[WindowBatch]:
    """Returns this process's part of endless shuffled batches, as `loader.training_batches` does.

    References go through the windows in a shuffled order of their own, so that in each epoch every window is once a
    source and once a reference.

    Args:
      source: The windows.
      batch_size: Windows of a global batch.
      seed: Seed of both orders.
      process_index: Which part of each batch.
      process_count: Processes that share a batch.
      threads: Threads that make batches; 0 does so in `next`, which is faster: a batch is ready in a millisecond.
      prefetch: Batches held ready.

    Raises:
      InputError: Sizes that do not fit.
    """
    rows = process_rows(batch_size, process_index, process_count)
    references = shuffled_batches(len(source), batch_size=batch_size, seed=seed, stream=1)
    return iter(
        shuffled_batches(len(source), batch_size=batch_size, seed=seed)
        .map_with_index(lambda number, indices: source.batch(indices[rows], references[number][rows]))
        .to_iter_dataset(read_options(threads, prefetch))
    )


def _window_starts(track: CoefficientTrack, window: int, hop: int) -> Int64[np.ndarray, " m"]:
    labelled = np.flatnonzero(track.labels != NO_LABEL)
    breaks = np.flatnonzero(np.diff(track.frame_index[labelled]) != 1) + 1
    starts = [np.arange(run[0], run[-1] + 2 - window, hop) for run in np.split(labelled, breaks) if run.size]
    return np.concatenate([np.zeros(0, np.int64), *starts])


def _majority(labels: Int[np.ndarray, " n"], places: Int[np.ndarray, " m"], window: int) -> Int32[np.ndarray, " m"]:
    """The most frequent label of each window, the first to occur of several."""
    seen = labels[places[:, None] + np.arange(window)]
    counts = np.stack([(seen == label).sum(axis=1) for label in range(len(EMOTIONS))], axis=1)
    first = np.take_along_axis(counts, seen, axis=1).argmax(axis=1)
    return seen[np.arange(len(places)), first].astype(np.int32)
