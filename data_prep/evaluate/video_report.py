"""The report on manipulated videos: `evaluation.json`, `table.md` and a page with films, curves and tables."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from asccl_jax.evals.figure_style import INK, MUTED, ROW_COLOURS, new_figure, quiet, title
from asccl_jax.evals.metric_text import Grid, align
from asccl_jax.evals.report import Card, Film, Page, Picture, Section, strip_figure, write_page
from asccl_jax.evals.statistics import LEAST_UNITS, Interval, interval_note
from asccl_jax.work import write_atomically
from data_prep.evaluate.video_metrics import (
    METRICS,
    ClipScores,
    Metric,
    ShownClip,
    VideoEvaluation,
    by_emotion,
    by_speaker,
    emotions_of,
    metric,
    overall,
    speakers_of,
)
from data_prep.evaluate.video_references import PUBLISHED, PublishedSetting

__all__ = [
    "clip_grid",
    "emotion_grid",
    "emotion_panels",
    "figure_text",
    "lacking_grids",
    "map_grids",
    "meaning_grid",
    "measured",
    "opening_curves",
    "overall_grid",
    "published_grids",
    "small_pools",
    "speaker_grid",
    "to_dict",
    "to_text",
    "video_page",
    "write_video_report",
]

# Tables of an evaluation of videos: over all, by emotion and speaker, beside published rows, clip by clip.

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


# Figures of an evaluation of videos: metrics by emotion, mouths over time, frames beside their source.

_COLUMNS = 3
_REAL = "#2a9d8f"


def emotion_panels(evaluation: VideoEvaluation) -> Figure:
    """Returns a panel a metric, a bar an emotion with its interval; a line where real clips are."""
    metrics = [one for one, _ in measured(evaluation)]
    lines = -(-len(metrics) // _COLUMNS)
    figure = new_figure(11.0, 1.95 * lines + 0.3)
    grid = figure.subplots(lines, _COLUMNS, squeeze=False)
    for axes, one in zip(grid.ravel(), metrics, strict=False):
        figures = by_emotion(one, evaluation.clips, evaluation.pools)
        _bars(axes, one, figures)
        real = None if one.pooled else overall(one, evaluation.real, ())
        if real is not None:
            axes.axhline(real.value, color=_REAL, linewidth=1.4, linestyle=(0, (4, 2)), label="real clips")
            axes.legend(fontsize=7, frameon=False, loc="upper right", handlelength=1.8)
        axes.margins(y=0.22)
        if min((shown.value for shown in figures.values()), default=0.0) >= 0:
            axes.set_ylim(bottom=0)
    for axes in grid.ravel()[len(metrics) :]:
        axes.set_visible(False)
    return figure


def opening_curves(shown: Sequence[ShownClip]) -> Figure | None:
    """Returns the course of mouths, a panel a clip; None where no clip has landmarks."""
    clips = [clip for clip in shown if len(clip.openings) > 1]
    if not clips:
        return None
    columns = min(2, len(clips))
    lines = -(-len(clips) // columns)
    figure = new_figure(11.0, 1.85 * lines + 0.5)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, clip in zip(grid.ravel(), clips, strict=False):
        for name, (times_s, opening) in clip.openings.items():
            own = name != "source"
            axes.plot(
                times_s,
                opening,
                color=ROW_COLOURS["trained"] if own else INK,
                linewidth=1.6 if own else 1.2,
                linestyle="-" if own else (0, (4, 2)),
                label=name,
            )
        quiet(axes)
        title(axes, clip.clip)
        axes.set_ylim(bottom=0)
    for axes in grid.ravel()[len(clips) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize=8, color="#56616d")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure


def _bars(axes: object, one: Metric, figures: dict[str, Interval]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    places = np.arange(len(figures))
    values = np.array([figure.value for figure in figures.values()])
    ends = np.array([[figure.low, figure.high] for figure in figures.values()])
    axes.bar(places, values, width=0.62, color=ROW_COLOURS["trained"], alpha=0.85)
    known = np.array([figure.known for figure in figures.values()])
    if known.any():
        sizes = np.abs(ends[known] - values[known, None]).T
        axes.errorbar(places[known], values[known], yerr=sizes, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    axes.set_xticks(places)
    axes.set_xticklabels(list(figures), fontsize=8)
    axes.set_xlim(-0.6, max(len(figures), 3) - 0.4)
    quiet(axes)
    axes.tick_params(axis="x", length=0)
    if min(values, default=0.0) < 0 < max(values, default=0.0):
        axes.axhline(0, color=MUTED, linewidth=0.8)
    title(axes, f"{one.title} {one.arrow}")


_FORMAT = 1
_DIGITS = 7
"""Significant digits in the file: what single precision holds."""

_WIDE = 9.6
"""Of a row of frames, inches."""

_CARDS = (
    *("lip_landmark_distance", "mouth_correlation", "lag_ms", "emotion_accuracy_efficientface"),
    *("fad_resnetface18", "lse_d_30fps", "lse_c_25fps", "expression_csim", "identity_csim", "psnr_db", "ssim"),
    "landmark_jitter",
)
_MOST_CARDS = 8


def write_video_report(directory: Path, evaluation: VideoEvaluation) -> Path:
    """Writes `evaluation.json`, `table.md`, `report.html` and its pictures; returns the page's path."""
    path = write_page(directory, video_page(evaluation))
    write_atomically(directory / "evaluation.json", json.dumps(to_dict(evaluation), indent=1, allow_nan=False) + "\n")
    write_atomically(directory / "table.md", _markdown(evaluation))
    return path


def to_dict(evaluation: VideoEvaluation) -> dict[str, Any]:
    """Returns all figures and what they are of, ready for JSON; the same for the same inputs."""
    figures: dict[str, Any] = {}
    for one, figure in measured(evaluation):
        figures[one.name] = {
            "overall": _plain(figure),
            "by_emotion": _plain(by_emotion(one, evaluation.clips, evaluation.pools)),
            "by_speaker": _plain(by_speaker(one, evaluation.clips, evaluation.pools)),
            "real": None if one.pooled else _plain(overall(one, evaluation.real, ())),
        }
    return {
        "format": _FORMAT,
        "metrics": {one.name: {"better": one.better, "meaning": one.meaning} for one in METRICS},
        "figures": figures,
        "pools": _plain(evaluation.pools),
        "clips": _plain(evaluation.clips),
        "real": _plain(evaluation.real),
        "refused": _plain(evaluation.refused),
        "clips_without_sound": evaluation.silent,
        "networks": dict(evaluation.networks),
        "missing_networks": dict(evaluation.missing),
        "map": _plain(evaluation.check),
        "probe": _plain(evaluation.probe),
        "not_comparable_because": list(evaluation.caveats),
        "published": _plain(PUBLISHED),
    }


def to_text(evaluation: VideoEvaluation) -> str:
    """Returns the main tables as aligned text, with what is missing and the verdict."""
    grids = [overall_grid(evaluation)._replace(note=""), emotion_grid(evaluation)]
    blocks = ["\n".join(filter(None, (grid.title, "", align(grid.headings, grid.rows)))) for grid in grids if grid.rows]
    for name, remedy in evaluation.missing.items():
        blocks.append(f"without --{name}: {remedy}")
    if evaluation.refused:
        blocks.append("\n".join(f"not scored: {one.clip} ({one.side}): {one.reason}" for one in evaluation.refused))
    return "\n\n".join([*blocks, _verdict(evaluation)]) + "\n"


def video_page(evaluation: VideoEvaluation) -> Page:
    """Returns the page of an evaluation."""
    sections = [*_films(evaluation.shown), _figures(evaluation), _published(evaluation), *_strips(evaluation.shown)]
    if evaluation.check is not None:
        sections.append(Section("Driver map", _map_words(evaluation), grids=map_grids(evaluation)))
    lacking = lacking_grids(evaluation)
    if lacking:
        sections.append(Section("What could not be measured", _lacking_words(evaluation), grids=lacking))
    clips = clip_grid(evaluation)
    sections.append(Section("Clip by clip", grids=(clips,)))
    sections.append(Section("The metrics", _network_words(evaluation), grids=(meaning_grid(evaluation),)))
    return Page(
        title="Manipulated videos: evaluation",
        subtitle=_subtitle(evaluation),
        verdict=_verdict(evaluation),
        cards=_cards(evaluation),
        sections=tuple(sections),
    )


def _films(shown: Sequence[ShownClip]) -> list[Section]:
    films = tuple(
        Film(f"film_{number}", f"{clip.clip}: {_headings(clip)}", clip.video, clip.poster, 520)
        for number, clip in enumerate(shown)
        if clip.video
    )
    text = "Small copies with sound, source and result side by side. The results are synthetic media."
    return [Section("The videos", text, films=films)] if films else []


def _strips(shown: Sequence[ShownClip]) -> list[Section]:
    sections = []
    curves = opening_curves(shown)
    if curves is not None:
        text = (
            "How far the inner lips are apart, over the distance between the eyes. Speech is kept where both curves"
            " rise and fall together; an emotion may raise or widen them as a whole."
        )
        caption = "Of the source and of the manipulated clip, over the time of what is heard in both."
        sections.append(Section("Mouths over time", text, (Picture("openings", caption, curves),)))
    strips = tuple(
        Picture(
            f"frames_{number}",
            f"{clip.clip}, frames {', '.join(map(str, clip.numbers))}",
            strip_figure(clip.rows, wide=_WIDE),
        )
        for number, clip in enumerate(shown)
    )
    if strips:
        sections.append(Section("Frames", "Frames of the same time, at even distances.", strips))
    return sections


def _headings(clip: ShownClip) -> str:
    return ", ".join(name for name, _ in clip.rows) + ", left to right"


def _figures(evaluation: VideoEvaluation) -> Section:
    shown = (by_emotion(one, evaluation.clips, evaluation.pools).values() for one, _ in measured(evaluation))
    over = interval_note(figure for figures in shown for figure in figures)
    caption = f"Bars: emotion asked for, {over}. Dashed: real clips by themselves."
    words = [small_pools(evaluation)]
    if evaluation.probe is not None:
        words.append(
            "Landmarks of manipulated mouths were read by a probe trained on the real clips, in the source's face; on"
            f" {evaluation.probe.frames} real frames it had not seen, it errs by {evaluation.probe.error:.4f} of the"
            " distance between the eyes, and no lip landmark distance can be told better than that."
        )
    several = len(emotions_of(evaluation.clips)) > 1 and measured(evaluation)
    pictures = (Picture("by_emotion", caption, emotion_panels(evaluation)),) if several else ()
    grids = (overall_grid(evaluation), emotion_grid(evaluation), speaker_grid(evaluation))
    return Section("Figures", " ".join(filter(None, words)), pictures, tuple(grid for grid in grids if grid.rows))


def _published(evaluation: VideoEvaluation) -> Section:
    words = [
        "Published averages over seven emotions. FAD is that on ResNetFace-18 features, LSE-D the form at 30 frames a"
        " second, and CSIM the expression similarity. ASCCL's own table is not known here; STCCL's is the nearest."
    ]
    if evaluation.caveats:
        words.append(f"NOT COMPARABLE with this evaluation: {'; '.join(evaluation.caveats)}.")
    else:
        words.append(
            "Comparable as far as speakers, emotions, map and frame size go; whether the networks' files are the"
            " authors' only their hashes tell, and manipulators of the papers saw some of the test speakers."
        )
    first = None if evaluation.check is None else evaluation.check.setting
    return Section("Beside the published tables", " ".join(words), grids=published_grids(evaluation, first))


def _map_words(evaluation: VideoEvaluation) -> str:
    check = evaluation.check
    assert check is not None
    words = [
        f"{check.covered} of the {check.wanted} pairs of source clip and emotion that the {check.setting}-ID map asks"
        " of --source have a clip."
    ]
    if check.foreign:
        words.append(f"{len(check.foreign)} clips belong to no pair, and count in the figures all the same.")
    if check.unstated:
        words.append(f"Of {check.unstated} clips the list names no driver: taken on trust.")
    return " ".join(words)


def _lacking_words(evaluation: VideoEvaluation) -> str:
    if not evaluation.silent:
        return ""
    return f"{evaluation.silent} of {len(evaluation.clips)} clips have no sound, nor has their source: no LSE of them."


def _network_words(evaluation: VideoEvaluation) -> str:
    found = [f"{name} {value[:16] or 'of unknown origin'}" for name, value in evaluation.networks.items()]
    return f"Networks, by the SHA-256 of their published file: {', '.join(found)}." if found else ""


def _subtitle(evaluation: VideoEvaluation) -> str:
    clips, emotions, speakers = evaluation.clips, emotions_of(evaluation.clips), speakers_of(evaluation.clips)
    people, asked = _counted(len(speakers), "speaker"), _counted(len(emotions), "emotion")
    frames = f"{sum(clip.frames for clip in clips):,} frames"
    words = [f"{_counted(len(clips), 'clip')} of {people} in {asked} ({', '.join(emotions)}), {frames}."]
    refused = sum(one.side == "fake" for one in evaluation.refused)
    if refused:
        words.append(f"{_counted(refused, 'clip')} NOT scored, see below.")
    return " ".join(words)


def _verdict(evaluation: VideoEvaluation) -> str:
    found = {one.name: (one, figure) for one, figure in measured(evaluation)}
    words = []
    words += _lag_words(evaluation.clips)
    if "lip_landmark_distance" in found and "mouth_correlation" in found:
        distance, correlation = found["lip_landmark_distance"][1], found["mouth_correlation"][1]
        words.append(
            f"Lips lie {distance.value:.3f} of the distance between the eyes from the source's, and mouths open and"
            f" shut with a correlation of {correlation.value:.2f}."
        )
    for name, phrase in (
        ("emotion_accuracy_efficientface", "EfficientFace sees the emotion asked for in {:.0%} of the frames."),
        ("fad_resnetface18", "FAD {:.3f}."),
        ("lse_d_30fps", "LSE-D {:.3f} at 30 frames a second."),
        ("psnr_db", "Where the truth is known, PSNR is {:.1f} dB."),
    ):
        if name in found:
            words.append(phrase.format(found[name][1].value))
    if evaluation.missing:
        words.append(f"Not measured for want of a network: {', '.join(evaluation.missing)}.")
    return " ".join(words) or "Nothing could be measured: no landmarks, no networks, no truth."


def _lag_words(clips: Sequence[ClipScores]) -> list[str]:
    """What is said of clips that come late, or whose clock is another."""
    lags = [clip for clip in clips if "lag_ms" in clip.values]
    clocks = [clip for clip in clips if clip.clock]
    # Below a frame nobody sees it, and codecs move sound by as much.
    late = [clip for clip in lags if abs(clip.values["lag_frames"]) >= 1]
    words = []
    if late:
        times, frames = ([clip.values[name] for clip in late] for name in ("lag_ms", "lag_frames"))
        verbs = "LAGS behind or runs ahead of its" if len(late) == 1 else "LAG behind or run ahead of their"
        words.append(
            f"{_share(late, lags)} {verbs} source against the sound, by {_range(times, 0)} ms"
            f" ({_range(frames, 1)} frames)."
        )
    elif lags and not clocks:
        words.append(f"No lag in {'the clip' if len(lags) == 1 else f'any of {len(lags)} clips'}.")
    if clocks:
        first = clocks[0]
        has = "has" if len(clocks) == 1 else "have"
        words.append(f"{_share(clocks, clips)} {has} ANOTHER CLOCK than the source: {first.clip} {first.clock}.")
    return words


def _share(some: Sequence[ClipScores], of: Sequence[ClipScores]) -> str:
    return "The clip" if len(of) == 1 else f"{len(some)} of {len(of)} clips"


def _range(values: Sequence[float], digits: int) -> str:
    ends = [f"{value:+.{digits}f}" for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _cards(evaluation: VideoEvaluation) -> tuple[Card, ...]:
    found = {one.name: (one, figure) for one, figure in measured(evaluation)}
    cards: list[Card] = []
    for name in _CARDS:
        if name not in found or len(cards) == _MOST_CARDS:
            continue
        one, figure = found[name]
        real = None if one.pooled else overall(one, evaluation.real, ())
        beside = "" if real is None else f" Real clips: {real.value:.{one.digits}f}."
        interval = figure_text(figure, one.digits).partition(" ")[2]
        words = f"{interval and f'{interval}, {interval_note([figure])}. '}{one.short}{beside}"
        cards.append(Card(f"{one.title} {one.arrow}", f"{figure.value + 0.0:.{one.digits}f}", words))
    return tuple(cards)


def _markdown(evaluation: VideoEvaluation) -> str:
    blocks = [f"# Manipulated videos: evaluation\n\n{_subtitle(evaluation)}\n\n{_verdict(evaluation)}"]
    grids: list[Grid] = [overall_grid(evaluation), emotion_grid(evaluation), speaker_grid(evaluation)]
    for grid in [*grids, *lacking_grids(evaluation)]:
        if grid.rows:
            lines = [grid.headings, ["---"] * len(grid.headings), *grid.rows]
            table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
            blocks.append(f"## {grid.title}\n\n{grid.note}\n\n{table}")
    return "\n\n".join(blocks) + "\n"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _plain(value: Any) -> Any:
    """As JSON has it: floats to the digits that mean something, what is not finite as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
