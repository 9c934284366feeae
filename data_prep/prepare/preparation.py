"""A preparation from end to end: find clips, prepare each, align pairs, write shards, the manifest last."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from asccl_jax.data.dataset import ClipSource, ShardEntry, begin_dataset, finish_dataset
from asccl_jax.data.schema import ClipPairRecord
from asccl_jax.errors import InputError
from data_prep.media.clips import Clip, Problem
from data_prep.media.landmarks import Precomputed, make_backend
from data_prep.media.layouts import apply_transcripts, assign_splits, find_clips
from data_prep.prepare.clip_records import ClipStatus, WorkFolder, plan_shards
from data_prep.prepare.pairing import ClipPair, export_pairs, find_pairs, import_pairs, pair_record
from data_prep.prepare.prepare_report import Outcome, write_report
from data_prep.prepare.prepare_settings import Preparation
from data_prep.prepare.stage_workers import align_pairs, prepare_clips, remove_work, write_shards

__all__ = ["prepare"]


def prepare(settings: Preparation, *, progress: bool = True) -> Outcome:
    """Makes a data set and returns what became of its clips.

    A run that was interrupted goes on where it stopped. Equal inputs and settings give equal shards, whatever the
    number of workers and interruptions. The report is written even where nothing usable is left.

    Args:
      settings: What to make of what.
      progress: Whether to show progress bars (on a terminal only).

    Raises:
      InputError: A setting or the input as a whole is wrong, no clip can be used, or no two clips can be paired.
    """
    clips, problems = _find_clips(settings)
    work = WorkFolder(begin_dataset(settings.output) / "work")
    for folder in ("clips", "pairs", "shards"):
        (work.path / folder).mkdir(parents=True, exist_ok=True)
    statuses = prepare_clips(clips, settings, work, progress=progress)
    problems += _clip_problems(clips, statuses)
    outcome = Outcome(settings=settings, clips=clips, statuses=statuses, problems=problems)
    usable = [clip for clip in clips if statuses[clip.clip_id].problem is None]
    if not usable:
        _fail(outcome, work, f"none of the {len(clips)} clips can be used")
    splits = _splits(usable, settings)
    found = find_pairs(
        usable,
        statuses,
        splits,
        settings=settings,
        work=work,
        align=lambda tasks: align_pairs(tasks, settings, work, progress=progress),
    )
    outcome = dataclasses.replace(outcome, splits=splits, problems=problems + found.problems, costly=found.costly)
    if not found.pairs:
        pair = "a neutral and an emotional one of the same speaker and sentence, both with sound"
        _fail(outcome, work, f"{len(usable)} clips are usable but no two of them can be paired ({pair})")
    tasks = plan_shards(
        found.clips, statuses, splits, output=settings.output, work=work, shard_bytes=settings.shard_bytes
    )
    size = sum(statuses[clip.clip_id].record_bytes for clip in usable)
    entries = write_shards(tasks, settings, work, size=size, progress=progress)
    records, outcome = _pair_records(outcome, found.pairs, entries)
    if not records:
        _fail(outcome, work, "no frame of any pair was kept")
    _finish(outcome, records, entries)
    write_report(outcome, work)
    if settings.pairs_to is not None:
        export_pairs(settings.pairs_to, outcome.pairs)
    if not settings.keep_work:
        remove_work(work.path)
    return outcome


def _find_clips(settings: Preparation) -> tuple[list[Clip], list[Problem]]:
    """Finds the clips, and lets every wrong setting fail now rather than after hours."""
    clips, problems = find_clips(settings.source, settings.layout, levels=settings.levels)
    if settings.transcripts is not None:
        clips = apply_transcripts(clips, settings.transcripts)
    _splits(clips, settings)
    if settings.pairs_from is not None:
        import_pairs(settings.pairs_from, clips)
    backend = make_backend(settings.clips.landmarks)
    if isinstance(backend, Precomputed):
        clips = [dataclasses.replace(clip, landmarks=backend.find(clip)) for clip in clips]
    backend.close()
    return clips, problems


def _splits(clips: Sequence[Clip], settings: Preparation) -> dict[str, str]:
    return assign_splits(
        clips,
        layout=settings.layout,
        validation_speakers=settings.validation_speakers,
        test_speakers=settings.test_speakers,
    )


def _clip_problems(clips: Sequence[Clip], statuses: Mapping[str, ClipStatus]) -> list[Problem]:
    problems = []
    for clip in clips:
        status = statuses[clip.clip_id]
        if status.problem is not None:
            problems.append(Problem(clip.clip_id, status.problem))
        problems += [Problem(clip.clip_id, remark, "kept") for remark in status.remarks]
        for reason, count in status.dropped.items():
            text = f"{reason}, in {count} of {count + status.kept} frames"
            problems.append(Problem(clip.clip_id, text, "kept"))
    return problems


def _pair_records(
    outcome: Outcome, pairs: Sequence[ClipPair], entries: Sequence[ShardEntry]
) -> tuple[dict[str, list[ClipPairRecord]], Outcome]:
    """Returns the records of the pairs by split, and the outcome with the pairs that have one."""
    positions = {name: clip.positions() for entry in entries for name, clip in entry.clips.items()}
    records: dict[str, list[ClipPairRecord]] = collections.defaultdict(list)
    kept, problems = [], []
    for pair in pairs:
        record = pair_record(pair, positions)
        if record is None:
            problems.append(Problem(pair.name, "none of its frames was kept"))
        else:
            records[outcome.splits[pair.query.clip_id]].append(record)
            kept.append(pair)
    for split in sorted({"train", "validation", *outcome.splits.values()}):
        if split not in records:
            problems.append(Problem(f"split {split}", "has no pair", "kept"))
    return dict(records), dataclasses.replace(outcome, pairs=kept, problems=outcome.problems + problems)


def _finish(outcome: Outcome, pairs: Mapping[str, Sequence[ClipPairRecord]], entries: Sequence[ShardEntry]) -> None:
    settings = outcome.settings
    root = settings.source if settings.source.is_dir() else settings.source.parent
    sources = {
        clip.clip_id: ClipSource(outcome.statuses[clip.clip_id].fps, _relative(clip.video, root))
        for clip in outcome.usable
    }
    finish_dataset(
        settings.output,
        name=settings.title,
        shards=entries,
        sources=sources,
        pairs=pairs,
        settings={**settings.described(), "pairs_left_out_by_cost": outcome.costly},
    )


def _relative(video: Path, root: Path) -> str:
    return video.relative_to(root).as_posix() if video.is_relative_to(root) else video.name


def _fail(outcome: Outcome, work: WorkFolder, what: str) -> NoReturn:
    """Writes the report and raises what is wrong with the input as a whole."""
    page = write_report(outcome, work)
    dropped = [problem for problem in outcome.problems if problem.outcome == "dropped"]
    reasons = collections.Counter(problem.reason for problem in dropped or outcome.problems)
    common = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    raise InputError(f"{outcome.settings.source}: {what}{common and ': '}{common}. More is in {page}")
