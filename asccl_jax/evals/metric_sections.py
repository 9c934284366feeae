"""Key figures and sections that every page on a metric shares, in words a newcomer can follow."""

from __future__ import annotations

from asccl_jax.evals.bootstrap import interval_note
from asccl_jax.evals.metric_bars import demo_bars, outcomes
from asccl_jax.evals.metric_evaluation import Evaluation
from asccl_jax.evals.metric_figures import ordering, ratios, similarity
from asccl_jax.evals.metric_pictures import attention_figures, example_figure
from asccl_jax.evals.metric_scores import chance_level
from asccl_jax.evals.metric_table import ORDER_VIEWS, RowSummary, Table
from asccl_jax.evals.metric_text import bar_grids, learning_grids, questions, speech_grids
from asccl_jax.evals.report_page import Card, Picture, Section

__all__ = ["metric_cards", "metric_sections"]


def metric_cards(evaluation: Evaluation) -> tuple[Card, ...]:
    """Returns the figures a person asks for first."""
    table = evaluation.table
    trained, untrained = table.row("trained"), table.row("untrained")
    candidate = evaluation.candidate("trained")
    if trained is None or trained.total is None or candidate is None:
        return ()
    chance = chance_level(candidate.metric.settings)
    start = f"untrained {untrained.total.value:.2f}, " if untrained is not None and untrained.total else ""
    cards = [
        Card(
            "loss on matched pairs (NCE)",
            f"{trained.total.value:.2f}",
            f"Lower is better: {start}guessing {chance:.2f}. It says that corresponding regions embed alike, not yet"
            " that the metric hears speech.",
        ),
        Card(
            "right region found, stages 1 to 4",
            _percentages(trained),
            "How often the nearest counterpart of a local change is the right one"
            + (f" (untrained {_percentages(untrained)})." if untrained is not None else "."),
        ),
    ]
    for name, label, meaning in (
        ("speech", "clearly other speech costs", "Loss of a frame of clearly other speech over the aligned one"),
        ("neutral_speech", "other speech on a neutral key costs", "Changed speech over changed pose and blink"),
    ):
        cards += _ratio_card(table, trained, name, label, meaning)
    return (*cards, *_comparison_cards(table))


def _ratio_card(table: Table, trained: RowSummary, name: str, label: str, meaning: str) -> list[Card]:
    result = trained.result(name, "face")
    if result is None:
        return []
    others = [
        f"{row.name} {found.ratio.value:.2f}"
        for row in table.rows
        if row is not trained and (found := row.result(name, "face")) is not None
    ]
    value = f"{result.ratio.value:.2f} times"
    interval = f", 95 % [{result.ratio.low:.2f}, {result.ratio.high:.2f}]" if result.ratio.known else ""
    return [Card(label, value, f"{meaning}{interval}; 1 would be deaf to speech. {'; '.join(others)}.")]


def _comparison_cards(table: Table) -> list[Card]:
    found = outcomes(table)
    cards = []
    if found:
        won = sum(outcome == "ahead" for outcome in found.values())
        meaning = "Comparisons in which it clearly beats both the untrained network and plain pixels, whole face."
        cards.append(Card("clear wins over both baselines", f"{won} of {len(found)}", meaning))
    bars = demo_bars(table)
    if bars:
        missed = [bar for bar in bars if not bar.met]
        meaning = "What configs/asccl.py:demo must reach on synthetic heads; other recipes have other figures."
        cards.append(Card("bars of the demo recipe", f"{len(bars) - len(missed)} of {len(bars)} met", meaning))
    return cards


def metric_sections(evaluation: Evaluation) -> tuple[Section, ...]:
    """Returns the sections on one evaluation: what was learned, what it looks at, what it tells apart, the bars."""
    sections = (
        _learning_section(evaluation),
        _attention_section(evaluation),
        _examples_section(evaluation),
        _speech_section(evaluation),
        Section("Bars", grids=bar_grids(evaluation.table)),
    )
    return tuple(section for section in sections if section.pictures or section.grids)


def _speech_section(evaluation: Evaluation) -> Section:
    table = evaluation.table
    asked = questions(table)
    if not asked.rows:
        return Section("What it tells apart")
    text = (
        "A loss that measures speech must rise when the speech differs, and not when only the emotion, the pose or the"
        " person does. Every row below is judged on the same queries; a learned metric that does not clearly beat plain"
        " pixels and its own random start is not worth its cost."
    )
    shown = [found for row in table.rows for found in row.contrasts if found.view in ORDER_VIEWS]
    captions = (
        f"Share of queries in the right order, {interval_note(found.paired for found in shown)}; the dotted line is"
        " chance. Mouth: centres confined to mouth and chin.",
        "Mean loss where it should be higher over mean loss where it should be lower,"
        f" {interval_note(found.ratio for found in shown if found.view == 'face')}; the dotted line is a metric that"
        " sees no difference. Each row has a scale of its own.",
    )
    pictures = (Picture("ordering", captions[0], ordering(table)), Picture("ratios", captions[1], ratios(table)))
    return Section("What it tells apart", text, pictures, (asked, *speech_grids(table)))


def _examples_section(evaluation: Evaluation) -> Section:
    trained = evaluation.candidate("trained")
    if trained is None:
        return Section("Examples")
    text = "Queries on top; below them the keys they are compared with, and the loss that the trained metric gives."
    figure = example_figure(evaluation, trained.name)
    return Section("Examples", text, (Picture("examples", "Fixed, evenly spaced queries; nothing picked.", figure),))


def _learning_section(evaluation: Evaluation) -> Section:
    before, after = evaluation.table.row("untrained"), evaluation.table.row("trained")
    pictures: tuple[Picture, ...] = ()
    if before is not None and after is not None and before.stages and after.stages:
        caption = "Cosine of local changes between a neutral and an emotional face: the same region against all others."
        pictures = (Picture("similarity", caption, similarity(before, after)),)
    return Section("What was learned", pictures=pictures, grids=learning_grids(evaluation.table))


def _attention_section(evaluation: Evaluation) -> Section:
    before, after = evaluation.candidate("untrained"), evaluation.candidate("trained")
    if after is None:
        return Section("What it looks at")
    captions = {
        "picks": (
            "Numbered changes of the neutral face and the nearest ones of the emotional face, second stage: green is"
            " right, amber the right place in another direction, red elsewhere with a line to the true place."
        ),
        "weights": (
            "Adaptive weights: regions whose features differ strongly from their neighbours count up to twice as much"
            " in the loss. Grey cells at the border are never centres."
        ),
    }
    figures = attention_figures(evaluation, before, after)
    pictures = tuple(Picture(name, captions[name], figures[name]) for name in captions if name in figures)
    return Section("What it looks at", pictures=pictures)


def _percentages(row: RowSummary) -> str:
    return ", ".join(f"{100 * stage.top1:.0f}" for stage in row.stages) + " %"
