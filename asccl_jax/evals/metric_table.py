"""The evaluation table: every row's losses on the same comparisons, turned into figures with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.evals import bootstrap
from asccl_jax.evals.bootstrap import Interval
from asccl_jax.evals.comparisons import Comparisons
from asccl_jax.evals.contrasts import CONTRASTS, Contrast
from asccl_jax.evals.metric_scores import MetricScores

__all__ = ["ContrastResult", "Leader", "Row", "RowKind", "RowSummary", "StageSummary", "Table", "summarise"]

RowKind: TypeAlias = Literal["trained", "control", "other", "untrained", "pixels"]

ORDER_VIEWS = ("face", "mouth")
"""Views in which rows compete: the whole face, and centres confined to the mouth."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a network or a plain image difference, scored on the comparisons.

    Attributes:
      name: Heading of the line.
      kind: "trained" is the checkpoint under test; "control" one trained on mis-paired frames; "other" any further
        checkpoint; "untrained" the same network at its random start; "pixels" the mean absolute difference.
      losses: View ("face", "stages 2+3", "stage 3", "mouth", "brow") -> one loss a comparison.
      scores: Losses and retrieval per stage; None for pixels, which have no stages.
      source: Where the row comes from: a directory or a description.
    """

    name: str
    kind: RowKind
    losses: Mapping[str, Float[np.ndarray, " n"]]
    scores: MetricScores | None = None
    source: str = ""


@dataclasses.dataclass(frozen=True)
class StageSummary:
    """Means of one stage over the matched comparisons.

    Attributes:
      nce: PatchNCE with weight 1.
      top1: Share of disparities whose nearest key disparity is the corresponding one.
      corresponding: Mean cosine of corresponding disparities.
      other: Mean cosine of all others.
    """

    nce: float
    top1: float
    corresponding: float
    other: float

    @property
    def gap(self) -> float:
        """Corresponding minus other cosine."""
        return self.corresponding - self.other


@dataclasses.dataclass(frozen=True)
class ContrastResult:
    """How one row tells two conditions apart, over the groups that have both.

    Attributes:
      contrast: Name of the contrast.
      view: Stages and part of the face.
      ratio: Mean loss that should be higher over mean loss that should be lower.
      auc: Area under the ROC curve over all images.
      paired: Share of queries ordered rightly.
    """

    contrast: str
    view: str
    ratio: Interval
    auc: Interval
    paired: Interval


@dataclasses.dataclass(frozen=True)
class RowSummary:
    """All figures of one row.

    Attributes:
      name, kind, source: As in `Row`.
      total: Sum over stages of the mean NCE of matched comparisons; None for pixels.
      stages: Figures per stage; empty for pixels.
      speakers: Total by speaker of the query.
      emotions: Total by emotion of the key.
      contrasts: Every contrast in every view the row has.
      mouth_over_brow: Excess loss of changed speech over that of changed brows, both above equal speech.
      mouth_over_emotion: Excess loss of changed speech over that of a full emotion.
    """

    name: str
    kind: RowKind
    source: str
    total: Interval | None
    stages: tuple[StageSummary, ...]
    speakers: Mapping[str, Interval]
    emotions: Mapping[str, Interval]
    contrasts: tuple[ContrastResult, ...]
    mouth_over_brow: Interval | None
    mouth_over_emotion: Interval | None

    def result(self, contrast: str, view: str) -> ContrastResult | None:
        """Returns the figures of a contrast in a view; None where the row or the data lack it."""
        return next((r for r in self.contrasts if r.contrast == contrast and r.view == view), None)


@dataclasses.dataclass(frozen=True)
class Leader:
    """Which row orders a contrast best.

    Attributes:
      contrast: Name of the contrast.
      view: Part of the face.
      measure: "paired" or "auc".
      first: Name of the best row among those under test and the baselines.
      value: What it reaches; at most 0.5 means that no row gets the order right.
      second: Name of the next one.
      difference: Their difference; resampled together, so that shared images cancel.
    """

    contrast: str
    view: str
    measure: Literal["paired", "auc"]
    first: str
    value: float
    second: str
    difference: Interval

    @property
    def clear(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.difference.low > 0


@dataclasses.dataclass(frozen=True)
class Table:
    """Everything an evaluation reports.

    Attributes:
      rows: Summaries in the order given.
      leaders: Best row by contrast, view and measure; only rows of kind trained, untrained and pixels compete.
      controlled: Whether the conditions are controlled or derived from aligned pairs.
      groups: Number of queries.
      conditions: Number of comparisons by condition.
    """

    rows: tuple[RowSummary, ...]
    leaders: tuple[Leader, ...]
    controlled: bool
    groups: int
    conditions: Mapping[str, int]

    def row(self, kind: RowKind) -> RowSummary | None:
        """Returns the first row of a kind."""
        return next((row for row in self.rows if row.kind == kind), None)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain mappings and lists for JSON."""
        return dataclasses.asdict(self)


def summarise(rows: Sequence[Row], comparisons: Comparisons) -> Table:
    """Returns the table of rows that were scored on the same comparisons."""
    lookup = comparisons.lookup()
    conditions = {name: len(found) for name, found in lookup.items()}
    return Table(
        rows=tuple(_summarise_row(row, comparisons, lookup) for row in rows),
        leaders=tuple(_leaders(rows, lookup)),
        controlled=comparisons.controlled,
        groups=len({record.group for record in comparisons.records}),
        conditions=conditions,
    )


def _summarise_row(row: Row, comparisons: Comparisons, lookup: Mapping[str, Mapping[int, int]]) -> RowSummary:
    matched = np.array(list(lookup.get("matched", {}).values()), np.int64)
    total: Interval | None = None
    stages: tuple[StageSummary, ...] = ()
    speakers: dict[str, Interval] = {}
    emotions: dict[str, Interval] = {}
    if row.scores is not None and len(matched):
        losses = row.losses["face"][matched]
        records = [comparisons.records[i] for i in matched]
        total = bootstrap.mean(losses)
        stages = _summarise_stages(row.scores, matched)
        speakers = _by_label(losses, [record.speaker for record in records])
        emotions = _by_label(losses, [record.emotion for record in records])
    results = tuple(
        result for view in row.losses for entry in CONTRASTS if (result := _contrast(row, entry, view, lookup))
    )
    return RowSummary(
        name=row.name,
        kind=row.kind,
        source=row.source,
        total=total,
        stages=stages,
        speakers=speakers,
        emotions=emotions,
        contrasts=results,
        mouth_over_brow=_excess(row, "brow_only", lookup),
        mouth_over_emotion=_excess(row, "matched", lookup),
    )


def _summarise_stages(scores: MetricScores, matched: Int[np.ndarray, " m"]) -> tuple[StageSummary, ...]:
    columns = (scores.nce, scores.top1, scores.corresponding, scores.other)
    means = [column[matched].mean(axis=0) for column in columns]
    return tuple(StageSummary(*(float(mean[stage]) for mean in means)) for stage in range(4))


def _by_label(losses: Float[np.ndarray, " m"], labels: Sequence[str]) -> dict[str, Interval]:
    chosen = np.array(labels)
    return {label: bootstrap.mean(losses[chosen == label]) for label in sorted(set(labels))}


def _paired_losses(
    row: Row, view: str, conditions: Sequence[str], lookup: Mapping[str, Mapping[int, int]]
) -> list[Float[np.ndarray, " n"]] | None:
    """Losses of each condition over the groups that have all of them; None where there is no such group."""
    if view not in row.losses or any(condition not in lookup for condition in conditions):
        return None
    groups = sorted(set.intersection(*(set(lookup[condition]) for condition in conditions)))
    if not groups:
        return None
    return [row.losses[view][[lookup[condition][group] for group in groups]] for condition in conditions]


def _contrast(row: Row, entry: Contrast, view: str, lookup: Mapping[str, Mapping[int, int]]) -> ContrastResult | None:
    losses = _paired_losses(row, view, (entry.lower, entry.higher), lookup)
    if losses is None:
        return None
    lower, higher = losses
    return ContrastResult(
        contrast=entry.name,
        view=view,
        ratio=bootstrap.ratio_of_means(higher, lower),
        auc=bootstrap.area_under_curve(lower, higher),
        paired=bootstrap.ordered_share(lower, higher),
    )


def _excess(row: Row, against: str, lookup: Mapping[str, Mapping[int, int]]) -> Interval | None:
    conditions = ("neutral_other_speech", against, "neutral_same_speech")
    losses = _paired_losses(row, "face", conditions, lookup)
    if losses is None:
        return None
    speech, other, same = losses
    return bootstrap.ratio_of_means(speech - same, other - same)


def _leaders(rows: Sequence[Row], lookup: Mapping[str, Mapping[int, int]]) -> list[Leader]:
    rivals = [row for row in rows if row.kind in ("trained", "untrained", "pixels")]
    leaders = []
    for entry in CONTRASTS:
        for view in ORDER_VIEWS:
            losses = {row.name: _paired_losses(row, view, (entry.lower, entry.higher), lookup) for row in rivals}
            present = {name: (found[0], found[1]) for name, found in losses.items() if found is not None}
            if len(present) >= 2:
                leaders += [_leader(entry.name, view, measure, present) for measure in _MEASURES]
    return leaders


LossPair: TypeAlias = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


def _paired_difference(first: LossPair, second: LossPair) -> Interval:
    return bootstrap.mean(bootstrap.wins(*first) - bootstrap.wins(*second))


_MEASURES: Mapping[Literal["paired", "auc"], Callable[[LossPair, LossPair], Interval]] = {
    "paired": _paired_difference,
    "auc": bootstrap.area_under_curve_difference,
}


def _leader(contrast: str, view: str, measure: Literal["paired", "auc"], losses: Mapping[str, LossPair]) -> Leader:
    figure = bootstrap.ordered_share if measure == "paired" else bootstrap.area_under_curve
    values = {name: figure(*pair).value for name, pair in losses.items()}
    first, second, *_ = sorted(values, key=lambda name: values[name], reverse=True)
    difference = _MEASURES[measure](losses[first], losses[second])
    return Leader(contrast, view, measure, first, values[first], second, difference)
