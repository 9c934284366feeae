"""One evaluation: several metrics and plain pixels, scored on the same comparisons and put into one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from asccl_jax.data.frames import FrameStore
from asccl_jax.errors import InputError
from asccl_jax.evals.comparisons import Comparisons
from asccl_jax.evals.metric_baselines import pixel_differences
from asccl_jax.evals.metric_scores import DRAWS, count_images, metric_losses, score_comparisons
from asccl_jax.evals.metric_table import Row, RowKind, Table, summarise
from asccl_jax.frozen_metric import FrozenMetric

__all__ = ["PIXELS", "Candidate", "Evaluation", "evaluate", "work_units"]

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
