"""The evaluation table: every row's losses on the same comparisons, turned into figures with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.evals import bootstrap
from asccl_jax.evals.bootstrap import Interval, Units
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
        return self.difference.clear


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
    conditions = {name: len(found) for name, found in comparisons.lookup.items()}
    return Table(
        rows=tuple(_summarise_row(row, comparisons) for row in rows),
        leaders=tuple(_leaders(rows, comparisons)),
        controlled=comparisons.controlled,
        groups=len({record.group for record in comparisons.records}),
        conditions=conditions,
    )


def _summarise_row(row: Row, comparisons: Comparisons) -> RowSummary:
    matched = np.array(list(comparisons.lookup.get("matched", {}).values()), np.int64)
    total: Interval | None = None
    stages: tuple[StageSummary, ...] = ()
    speakers: dict[str, Interval] = {}
    emotions: dict[str, Interval] = {}
    if row.scores is not None and len(matched):
        losses = row.losses["face"][matched]
        records = [comparisons.records[i] for i in matched]
        total = bootstrap.mean(losses, comparisons.units(matched))
        stages = _summarise_stages(row.scores, matched)
        speakers = _by_label(losses, [record.speaker for record in records], matched, comparisons)
        emotions = _by_label(losses, [record.emotion for record in records], matched, comparisons)
    results = tuple(
        result for view in row.losses for entry in CONTRASTS if (result := _contrast(row, entry, view, comparisons))
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
        mouth_over_brow=_excess(row, "brow_only", comparisons),
        mouth_over_emotion=_excess(row, "matched", comparisons),
    )


def _summarise_stages(scores: MetricScores, matched: Int[np.ndarray, " m"]) -> tuple[StageSummary, ...]:
    columns = (scores.nce, scores.top1, scores.corresponding, scores.other)
    means = [column[matched].mean(axis=0) for column in columns]
    return tuple(StageSummary(*(float(mean[stage]) for mean in means)) for stage in range(4))


def _by_label(
    losses: Float[np.ndarray, " m"], labels: Sequence[str], matched: Int[np.ndarray, " m"], comparisons: Comparisons
) -> dict[str, Interval]:
    own = {label: np.array(labels) == label for label in sorted(set(labels))}
    return {label: bootstrap.mean(losses[one], comparisons.units(matched[one])) for label, one in own.items()}


def _paired_losses(
    row: Row, view: str, conditions: Sequence[str], comparisons: Comparisons
) -> tuple[list[Float[np.ndarray, " n"]], Units] | None:
    """Losses of each condition over the groups that have all of them, and what to resample; None without a group."""
    lookup = comparisons.lookup
    if view not in row.losses or any(condition not in lookup for condition in conditions):
        return None
    groups = sorted(set.intersection(*(set(lookup[condition]) for condition in conditions)))
    if not groups:
        return None
    places = [np.array([lookup[condition][group] for group in groups]) for condition in conditions]
    return [row.losses[view][chosen] for chosen in places], comparisons.units(places[0])


def _contrast(row: Row, entry: Contrast, view: str, comparisons: Comparisons) -> ContrastResult | None:
    found = _paired_losses(row, view, (entry.lower, entry.higher), comparisons)
    if found is None:
        return None
    (lower, higher), units = found
    return ContrastResult(
        contrast=entry.name,
        view=view,
        ratio=bootstrap.ratio_of_means(higher, lower, units),
        auc=bootstrap.area_under_curve(lower, higher, units),
        paired=bootstrap.ordered_share(lower, higher, units),
    )


def _excess(row: Row, against: str, comparisons: Comparisons) -> Interval | None:
    conditions = ("neutral_other_speech", against, "neutral_same_speech")
    found = _paired_losses(row, "face", conditions, comparisons)
    if found is None:
        return None
    (speech, other, same), units = found
    return bootstrap.ratio_of_means(speech - same, other - same, units)


def _leaders(rows: Sequence[Row], comparisons: Comparisons) -> list[Leader]:
    rivals = [row for row in rows if row.kind in ("trained", "untrained", "pixels")]
    leaders = []
    for entry in CONTRASTS:
        for view in ORDER_VIEWS:
            conditions = (entry.lower, entry.higher)
            found = {row.name: _paired_losses(row, view, conditions, comparisons) for row in rivals}
            present = {name: one for name, one in found.items() if one is not None}
            if len(present) >= 2:
                losses = {name: (pair[0], pair[1]) for name, (pair, _) in present.items()}
                # Views differ between rows, groups do not.
                units = next(iter(present.values()))[1]
                leaders += [_leader(entry.name, view, measure, losses, units) for measure in _MEASURES]
    return leaders


LossPair: TypeAlias = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


def _paired_difference(first: LossPair, second: LossPair, units: Units) -> Interval:
    return bootstrap.mean(bootstrap.wins(*first) - bootstrap.wins(*second), units)


_MEASURES: Mapping[Literal["paired", "auc"], Callable[[LossPair, LossPair, Units], Interval]] = {
    "paired": _paired_difference,
    "auc": bootstrap.area_under_curve_difference,
}


def _leader(
    contrast: str, view: str, measure: Literal["paired", "auc"], losses: Mapping[str, LossPair], units: Units
) -> Leader:
    figure = bootstrap.ordered_share if measure == "paired" else bootstrap.area_under_curve
    values = {name: figure(*pair, units).value for name, pair in losses.items()}
    first, second, *_ = sorted(values, key=lambda name: values[name], reverse=True)
    difference = _MEASURES[measure](losses[first], losses[second], units)
    return Leader(contrast, view, measure, first, values[first], second, difference)
