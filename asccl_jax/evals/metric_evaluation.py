"""One evaluation: several metrics and plain pixels, scored on the same comparisons and put into one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from asccl_jax.data.frames import FrameStore
from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.errors import InputError
from asccl_jax.evals import statistics
from asccl_jax.evals.metric_comparisons import Comparisons
from asccl_jax.evals.metric_scores import DRAWS, count_images, metric_losses, pixel_differences, score_comparisons
from asccl_jax.evals.metric_table import Row, RowKind, Table, summarise
from asccl_jax.evals.metric_text import Grid
from asccl_jax.evals.statistics import Interval, Units
from asccl_jax.weights import FrozenMetric

__all__ = [
    "PIXELS",
    "Candidate",
    "ClipLoss",
    "Evaluation",
    "clip_comparisons",
    "clip_grid",
    "clip_losses",
    "evaluate",
    "work_units",
]

PIXELS = "pixel difference"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A metric to score.

    Attributes:
      name: Heading of its row.
      kind: Its part in the table, see `metric_table.Row`.
      metric: The metric.
      source: Where it comes from.
    """

    name: str
    kind: RowKind
    metric: FrozenMetric
    source: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation leaves behind.

    Attributes:
      candidates: The metrics.
      frames: Where the images come from.
      comparisons: What was compared.
      rows: Losses, a row a candidate and one for pixels.
      table: The figures.
    """

    candidates: tuple[Candidate, ...]
    frames: FrameStore
    comparisons: Comparisons
    rows: tuple[Row, ...]
    table: Table

    def candidate(self, kind: RowKind) -> Candidate | None:
        """Returns the first candidate of a kind."""
        return next((candidate for candidate in self.candidates if candidate.kind == kind), None)


def evaluate(
    candidates: Sequence[Candidate],
    frames: FrameStore,
    comparisons: Comparisons,
    *,
    draws: int = DRAWS,
    advance: Callable[[int], object] = lambda images: None,
) -> Evaluation:
    """Returns the evaluation of metrics on comparisons; a row of pixel differences is added last.

    Args:
      candidates: Metrics, each with a name of its own.
      frames: Where images come from.
      comparisons: What to compare.
      draws: Draws of locations to average.
      advance: Told how many images were done, for a progress bar; `work_units` of them in all.

    Raises:
      InputError: Two rows have the same name.
    """
    names = [*(candidate.name for candidate in candidates), PIXELS]
    if len(set(names)) < len(names):
        raise InputError(f"rows {', '.join(names)}: each needs another name; change --name or --also NAME=DIR")
    rows = []
    for candidate in candidates:
        scores = score_comparisons(candidate.metric, frames, comparisons.records, draws=draws, advance=advance)
        rows.append(Row(candidate.name, candidate.kind, metric_losses(scores), scores, candidate.source))
    pixels = pixel_differences(frames, comparisons.records)
    rows.append(Row(PIXELS, "pixels", pixels, source="mean absolute difference of the crops"))
    return Evaluation(tuple(candidates), frames, comparisons, tuple(rows), summarise(rows, comparisons))


def work_units(candidates: Sequence[Candidate], comparisons: Comparisons) -> int:
    """Returns how many images `evaluate` puts through networks."""
    return len(candidates) * count_images(comparisons.records)


# A sanity check on real clips: the loss of one clip against others, frame by frame.

VIEWS = ("face", "mouth")


@dataclasses.dataclass(frozen=True)
class ClipLoss:
    """Loss of the query clip against one key clip, under one row.

    Attributes:
      row: Name of the metric, or of the pixel difference.
      key_clip: The key clip.
      face: Mean over frames, whole face.
      mouth: The same with centres confined to the mouth.
      below: Share of frames whose mouth loss is below that against each other key clip, by clip.
    """

    row: str
    key_clip: str
    face: Interval
    mouth: Interval
    below: dict[str, float]


def clip_comparisons(frames: FrameStore, query: str, keys: Sequence[str]) -> list[ComparisonRecord]:
    """Returns every frame position that all clips have, the query clip compared with each key clip.

    Raises:
      InputError: A clip is not in the split, or the clips share no frame position.
    """
    for clip in (query, *keys):
        if clip not in frames.index.clips:
            known = ", ".join(sorted(frames.index.clips)[:8])
            raise InputError(f"clip {clip!r} is not in split {frames.index.split!r}, which has {known}, ...")
    shared = set.intersection(*(set(frames.index.positions(clip).tolist()) for clip in (query, *keys)))
    if not shared:
        raise InputError(f"clips {query}, {', '.join(keys)}: no frame position is kept in all of them")
    entry = frames.index.clips[query]
    return [
        ComparisonRecord(
            group=group,
            condition=key,
            query_clip=query,
            query_frame=frame,
            key_clip=key,
            key_frame=frame,
            speaker=entry.speaker,
            emotion=frames.index.clips[key].emotion,
            speech_distance=0.0,
        )
        for group, frame in enumerate(sorted(shared))
        for key in keys
    ]


def clip_losses(
    candidates: Sequence[Candidate],
    frames: FrameStore,
    comparisons: Sequence[ComparisonRecord],
    *,
    draws: int = DRAWS,
    advance: Callable[[int], object] = lambda images: None,
) -> list[ClipLoss]:
    """Returns the loss against each key clip, for each metric and for pixel differences."""
    rows = []
    for candidate in candidates:
        scores = score_comparisons(candidate.metric, frames, comparisons, draws=draws, regions=VIEWS, advance=advance)
        rows += _by_clip(candidate.name, metric_losses(scores), comparisons)
    return rows + _by_clip(PIXELS, pixel_differences(frames, comparisons), comparisons)


def _by_clip(
    row: str, losses: dict[str, Float[np.ndarray, " n"]], comparisons: Sequence[ComparisonRecord]
) -> list[ClipLoss]:
    clips = list(dict.fromkeys(record.key_clip for record in comparisons))
    # All frames are of one pair of clips: there is nothing to resample.
    pair = Units("clip pair", np.zeros(len(comparisons) // len(clips), np.int64))
    of_clip = {clip: np.array([record.key_clip == clip for record in comparisons]) for clip in clips}
    return [
        ClipLoss(
            row=row,
            key_clip=clip,
            face=statistics.mean(losses["face"][of_clip[clip]], pair),
            mouth=statistics.mean(losses["mouth"][of_clip[clip]], pair),
            below={
                other: statistics.ordered_share(
                    losses["mouth"][of_clip[clip]], losses["mouth"][of_clip[other]], pair
                ).value
                for other in clips
                if other != clip
            },
        )
        for clip in clips
    ]


def clip_grid(query: str, losses: Sequence[ClipLoss]) -> Grid:
    """Returns the losses as a table."""
    rows = tuple(
        (
            loss.row,
            loss.key_clip,
            f"{loss.face.value:.3g}",
            f"{loss.mouth.value:.3g}",
            "; ".join(f"{share:.2f} below {clip}" for clip, share in loss.below.items()),
        )
        for loss in losses
    )
    note = (
        f"Mean loss of {query} against each key clip at the same {losses[0].face.count} frame positions."
        " No intervals: frames of one pair of clips are not independent. An untrained network may rank the clips as"
        " well: no evidence of learning."
    )
    return Grid("Clip against clips", note, ("row", "key clip", "whole face", "mouth", "share of frames, mouth"), rows)
