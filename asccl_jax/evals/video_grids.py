"""Tables of an evaluation of videos: over all, by emotion and speaker, beside published rows, clip by clip."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence

from asccl_jax.evals.bootstrap import LEAST_UNITS, Interval, interval_note
from asccl_jax.evals.metric_text import Grid
from asccl_jax.evals.video_evaluation import VideoEvaluation
from asccl_jax.evals.video_metrics import METRICS, ClipScores, Metric, metric
from asccl_jax.evals.video_references import PUBLISHED, PublishedSetting
from asccl_jax.evals.video_tables import by_emotion, by_speaker, overall

__all__ = [
    "clip_grid",
    "emotion_grid",
    "figure_text",
    "lacking_grids",
    "map_grids",
    "meaning_grid",
    "measured",
    "overall_grid",
    "published_grids",
    "small_pools",
    "speaker_grid",
]

_OURS = "this evaluation"
_FEWEST = 512
"""Frames below which a covariance of 512 features has no full rank, and a Frechet distance is too large."""


def measured(evaluation: VideoEvaluation) -> list[tuple[Metric, Interval]]:
    """Returns the metrics that something has, with their figures over all clips."""
    found = ((one, overall(one, evaluation.clips, evaluation.pools)) for one in METRICS)
    return [(one, figure) for one, figure in found if figure is not None]


def figure_text(figure: Interval | None, digits: int) -> str:
    """Returns a figure with its interval, if it has one."""
    return "" if figure is None else figure.text(digits)


def overall_grid(evaluation: VideoEvaluation) -> Grid:
    """Returns every figure over all clips, beside what real clips have by themselves."""
    rows = []
    for one, figure in measured(evaluation):
        real = None if one.pooled else overall(one, evaluation.real, ())
        count = figure.count if not one.pooled else sum(pool.metric == one.name for pool in evaluation.pools)
        unit = ("pools" if count > 1 else "pool") if one.pooled else ("clips" if count > 1 else "clip")
        rows.append(
            (
                one.title,
                one.arrow,
                figure_text(figure, one.digits),
                figure_text(real, one.digits),
                f"{count} {unit}",
                _over(figure),
            )
        )
    note = (
        "Means over emotions, each of the mean of its clips. 95 % intervals resample what the last column says:"
        f" speakers where there are {LEAST_UNITS} or more, else sources, else clips, whose intervals are on the narrow"
        " side where clips share a source and its speech. Fewer tell too little for an interval; a Fréchet distance has"
        " none, as smaller pools enlarge it."
    )
    return Grid(
        "All clips", note, ("metric", "better", "manipulated", "real clips", "of", "interval over"), tuple(rows)
    )


def emotion_grid(evaluation: VideoEvaluation) -> Grid:
    """Returns every figure by emotion, if there are several; intervals are in the panels and in the file."""
    return _by("By emotion", evaluation, by_emotion, "", lambda one: True)


def speaker_grid(evaluation: VideoEvaluation) -> Grid:
    """Returns every figure by speaker, if there are several; Frechet distances pool them."""
    note = "Means over emotions. Fréchet distances pool all speakers of an emotion and have no figure of one."
    return _by("By speaker", evaluation, by_speaker, note, lambda one: not one.name.startswith("fad"))


def published_grids(evaluation: VideoEvaluation, first: str | None = None) -> tuple[Grid, ...]:
    """Returns the rows of the papers' tables, a table a data set, ours on top.

    Args:
      evaluation: Ours.
      first: Setting whose rows come first, "intra" or "cross".
    """
    names = ("fad_resnetface18", "lse_d_30fps", "expression_csim")
    figures = [overall(metric(name), evaluation.clips, evaluation.pools) for name in names]
    own = ("not measured" if figure is None else f"{figure.value:.3f}" for figure in figures)
    ours = (_OURS, "" if first is None else f"{first}-ID", *own, "this page")
    headings = ("method", "setting", *(f"{metric(name).title} {metric(name).arrow}" for name in names), "from")
    grids = []
    for data in dict.fromkeys(table.data for table in PUBLISHED):
        tables = sorted((one for one in PUBLISHED if one.data == data), key=lambda one: one.setting != first)
        grids.append(Grid(data, "", headings, (ours, *(row for one in tables for row in _rows(one)))))
    return tuple(grids)


def map_grids(evaluation: VideoEvaluation) -> tuple[Grid, ...]:
    """Returns pairs of a driver map without a clip, and clips outside the map."""
    check = evaluation.check
    if check is None:
        return ()
    missing = Grid(
        "Pairs without a clip",
        "",
        ("source clip", "speaker", "driver", "emotion"),
        tuple((pair.source, pair.speaker, pair.driver, pair.emotion) for pair in check.missing),
    )
    foreign = Grid("Clips outside the map", "", ("clip", "why"), check.foreign)
    return tuple(grid for grid in (missing, foreign) if grid.rows)


def lacking_grids(evaluation: VideoEvaluation) -> tuple[Grid, ...]:
    """Returns what could not be had: networks without a file, figures some clips lack, clips that were refused."""
    networks = Grid(
        "Networks that were not given",
        "Each costs its own metrics only.",
        ("network", "why"),
        tuple((name, remedy) for name, remedy in evaluation.missing.items()),
    )
    reasons: collections.Counter[tuple[str, str]] = collections.Counter()
    for clip in evaluation.clips:
        reasons.update((metric(name).title, reason) for name, reason in clip.lacking.items())
    figures = Grid(
        "Figures that clips lack",
        "",
        ("metric", "clips", "why"),
        tuple((title, str(count), reason) for (title, reason), count in sorted(reasons.items())),
    )
    refused = Grid(
        "Clips that were not scored",
        "",
        ("clip", "side", "why"),
        tuple((one.clip, one.side, one.reason) for one in evaluation.refused),
    )
    return tuple(grid for grid in (refused, networks, figures) if grid.rows)


def clip_grid(evaluation: VideoEvaluation) -> Grid:
    """Returns every figure of every clip."""
    own = [one for one, _ in measured(evaluation) if not one.pooled]
    rows = tuple(
        (clip.clip, str(clip.frames), clip.source, *(_cell(clip, one) for one in own)) for clip in evaluation.clips
    )
    return Grid("Every clip", "", ("clip", "frames", "from", *(one.title for one in own)), rows)


def meaning_grid(evaluation: VideoEvaluation) -> Grid:
    """Returns what each metric is."""
    have = {one.name for one, _ in measured(evaluation)}
    rows = tuple((one.title, one.name, one.meaning) for one in METRICS if one.name in have)
    return Grid("How it is measured", "", ("metric", "from", "what it is"), rows)


def small_pools(evaluation: VideoEvaluation) -> str:
    """Returns a warning where pools are too small for a Frechet distance, or nothing."""
    counts = [min(pool.real, pool.fake) for pool in evaluation.pools if pool.metric.startswith("fad")]
    if not counts or min(counts) > _FEWEST:
        return ""
    return (
        f"The smallest pool of a Fréchet distance has {min(counts)} frames, fewer than its features have dimensions:"
        " such a distance is too large, and compares only with others of as many frames."
    )


def _by(
    title: str,
    evaluation: VideoEvaluation,
    split: Callable[..., Mapping[str, Interval]],
    note: str,
    wanted: Callable[[Metric], bool],
) -> Grid:
    found = {one: split(one, evaluation.clips, evaluation.pools) for one, _ in measured(evaluation) if wanted(one)}
    labels = list(dict.fromkeys(label for figures in found.values() for label in figures))
    rows = tuple(
        (f"{one.title} {one.arrow}", *(_value(figures.get(label), one.digits) for label in labels))
        for one, figures in found.items()
    )
    return Grid(title, note, ("metric", *labels), rows if len(labels) > 1 else ())


def _over(figure: Interval) -> str:
    return interval_note([figure]).partition(" over ")[2] if figure.known else ""


def _value(figure: Interval | None, digits: int) -> str:
    return "" if figure is None else f"{round(figure.value, digits) + 0.0:.{digits}f}"


def _cell(clip: ClipScores, one: Metric) -> str:
    return f"{clip.values[one.name] + 0.0:.{one.digits}f}" if one.name in clip.values else ""


def _rows(table: PublishedSetting) -> Sequence[tuple[str, ...]]:
    setting = f"{table.setting}-ID"
    return [
        (row.method, setting, f"{row.fad:.3f}", f"{row.lse_d:.3f}", f"{row.csim:.3f}", row.where) for row in table.rows
    ]
