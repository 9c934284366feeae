"""Bars for the demo recipe: what a metric trained on synthetic heads must reach, and that it beats its baselines."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from asccl_jax.evals.contrasts import contrast
from asccl_jax.evals.metric_table import RowSummary, Table

__all__ = ["Bar", "Outcome", "demo_bars", "outcomes", "verdict"]

STAGE_TOP1 = (0.42, 0.75, 0.95, 0.99)
STAGE_GAP = (0.50, 0.72, 0.80, 0.80)


@dataclasses.dataclass(frozen=True)
class Bar:
    """One requirement and what was measured.

    Attributes:
      title: What is measured.
      value: What came out.
      bound: What is asked for.
      at_most: Whether `bound` is the largest allowed value rather than the smallest.
    """

    title: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the requirement holds."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        relation = "at most" if self.at_most else "at least"
        return f"{self.title}: {self.value:.3f}, {relation} {self.bound:.3f}: {'met' if self.met else 'MISSED'}"


def demo_bars(table: Table) -> tuple[Bar, ...]:
    """Returns the bars that the table can answer, for its first trained row; none without controlled comparisons.

    They were derived on synthetic heads for an 18-layer trunk at 112 px after 285 steps of 8 pairs, and hold for that
    recipe. NCE, retrieval and gap say that something was learned; only the ratios say that the pairs were right, and
    they are compared with a control trained on mis-paired frames where the table has one.
    """
    trained = table.row("trained")
    if trained is None or trained.total is None or not table.controlled:
        return ()
    bars = [Bar("total NCE of matched pairs", trained.total.value, 4.5, at_most=True)]
    untrained = table.row("untrained")
    if untrained is not None and untrained.total is not None:
        share = trained.total.value / untrained.total.value
        bars.append(Bar("total NCE over that of the untrained network", share, 0.45, at_most=True))
    for number, (stage, top1, gap) in enumerate(zip(trained.stages, STAGE_TOP1, STAGE_GAP, strict=True), start=1):
        bars.append(Bar(f"stage {number} top-1", stage.top1, top1))
        bars.append(Bar(f"stage {number} similarity gap", stage.gap, gap))
    return (*bars, *_ratio_bars(trained, table.row("control")))


def _ratio_bars(trained: RowSummary, control: RowSummary | None) -> list[Bar]:
    bars = []
    for name, view, title, bound, at_most in (
        ("speech", "face", "loss of clearly other speech over matched", 1.34, False),
        ("neutral_speech", "face", "neutral key: loss of changed speech over unchanged", 1.52, False),
        ("speech", "mouth", "the same ratio with centres on the mouth", 1.80, False),
        ("speech", "brow", "the same ratio with centres on the brows", 1.15, True),
    ):
        result = trained.result(name, view)
        if result is None:
            continue
        bars.append(Bar(title, result.ratio.value, bound, at_most))
        rival = control.result(name, view) if control is not None else None
        if rival is not None and not at_most and result.ratio.known:
            title = f"{title}, lower end, against the upper end of the mis-paired control"
            bars.append(Bar(title, result.ratio.low, rival.ratio.high))
    return bars


Outcome: TypeAlias = Literal["ahead", "level", "behind", "unheard", "open"]


def outcomes(table: Table, view: str = "face") -> dict[str, Outcome]:
    """Returns how the trained metric stands against the untrained network and plain pixels, comparison by comparison.

    "ahead": clearly best by the share of queries in order or by the area under the curve, and clearly beaten in
    neither; "behind": clearly beaten by one of them; "unheard": no row gets the order right; "open": too few clips
    for an interval, which could tell; else "level".
    """
    trained = table.row("trained")
    found: dict[str, Outcome] = {}
    for name in dict.fromkeys(leader.contrast for leader in table.leaders):
        leaders = [leader for leader in table.leaders if leader.contrast == name and leader.view == view]
        if trained is None or not leaders:
            continue
        won = any(leader.clear and leader.first == trained.name for leader in leaders)
        lost = any(leader.clear and leader.first != trained.name for leader in leaders)
        if all(leader.value <= 0.5 for leader in leaders):
            found[name] = "unheard"
        elif not any(leader.difference.known for leader in leaders):
            found[name] = "open"
        else:
            found[name] = "behind" if lost else "ahead" if won else "level"
    return found


def verdict(table: Table) -> str:
    """Returns in a few sentences where the trained metric beats its baselines, and whether it is worth its cost."""
    found = outcomes(table)
    if not found:
        return "There is nothing to compare the metric with: no baseline, or no comparison but matched pairs."
    phrases = {
        "ahead": "The trained metric clearly beats both the untrained network and plain pixels at",
        "level": "It is level with the better of them at",
        "behind": "It is clearly behind one of them at",
        "unheard": "No row passes",
        "open": "There are too few clips to tell which row is best at",
    }
    if "ahead" not in found.values():
        phrases["level"] = "The trained metric is level with the better of untrained network and plain pixels at"
    sentences = []
    for outcome, phrase in phrases.items():
        titles = [contrast(name).title for name, result in found.items() if result == outcome]
        if titles:
            sentences.append(f"{phrase}: {'; '.join(titles)}.")
    if not {"ahead", "open"} & set(found.values()):
        sentences.append("On this evidence a learned metric is not worth its cost.")
    return " ".join(sentences)
