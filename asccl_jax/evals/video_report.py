"""The report on manipulated videos: `evaluation.json`, `table.md` and a page with films, curves and tables."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asccl_jax.data.atomic import write_atomically
from asccl_jax.evals.bootstrap import interval_note
from asccl_jax.evals.metric_text import Grid, align
from asccl_jax.evals.report_page import Card, Film, Page, Picture, Section, write_page
from asccl_jax.evals.strip_figure import strip_figure
from asccl_jax.evals.video_evaluation import ShownClip, VideoEvaluation
from asccl_jax.evals.video_figures import emotion_panels, opening_curves
from asccl_jax.evals.video_grids import (
    clip_grid,
    emotion_grid,
    figure_text,
    lacking_grids,
    map_grids,
    meaning_grid,
    measured,
    overall_grid,
    published_grids,
    small_pools,
    speaker_grid,
)
from asccl_jax.evals.video_metrics import METRICS, ClipScores
from asccl_jax.evals.video_references import PUBLISHED
from asccl_jax.evals.video_tables import by_emotion, by_speaker, emotions_of, overall, speakers_of

__all__ = ["to_dict", "to_text", "video_page", "write_video_report"]

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
