"""The three stages of a preparation: what is left to do of each, where to run it, and what to do if a worker dies."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from asccl_jax.data.dataset import ShardEntry
from data_prep.media.clips import Clip
from data_prep.prepare.clip_records import ClipStatus, ShardTask, WorkFolder, assemble_shard, clip_key
from data_prep.prepare.pairing import PairTask, align_pair
from data_prep.prepare.prepare_settings import Preparation

__all__ = [
    "align_pairs",
    "prepare_clips",
    "remove_work",
    "write_shards",
]

_FEW_VIDEO_BYTES = 2_000_000
"""Videos that one process prepares sooner than several have started, about a thousand small frames."""

_FEW_PAIRS = 20
"""Pairs that this process aligns sooner than Beam has started."""

_FEW_BYTES = 1_000_000_000
"""Records that this process copies sooner than Beam has started."""


def prepare_clips(
    clips: Sequence[Clip], settings: Preparation, work: WorkFolder, *, progress: bool
) -> dict[str, ClipStatus]:
    """Prepares all clips that are not done, and returns the status of each by its id.

    A clip that kills its worker (a decoder that crashes, no memory) is found by preparing those that were under way
    one by one, and given up.
    """
    keys = {clip.clip_id: clip_key(clip, settings.clips) for clip in clips}
    todo = [clip for clip in clips if work.status(clip, keys[clip.clip_id]) is None]
    for clip in todo:
        work.status_path(clip).unlink(missing_ok=True)
        work.mark_path(clip).unlink(missing_ok=True)
    runner = settings.runner
    if _is_quick(todo, settings):
        runner = dataclasses.replace(runner, workers=1)
    while todo:
        stages = _load_stages()
        step = stages.PrepareClips(settings.clips, work)
        try:
            stages.run_stage("clips", todo, step, settings=runner, results=work.path / "clips", progress=progress)
        except stages.WorkerDiedError:
            suspects = [clip for clip in todo if work.mark_path(clip).exists() and work.status(clip) is None]
            if not suspects:
                raise
            for clip in suspects:
                _prepare_apart(clip, keys[clip.clip_id], settings, work)
            todo = [clip for clip in todo if work.status(clip, keys[clip.clip_id]) is None]
        else:
            break
    found = {clip.clip_id: work.status(clip) for clip in clips}
    return {name: status or ClipStatus(name, "", problem="never finished") for name, status in found.items()}


def align_pairs(tasks: Sequence[PairTask], settings: Preparation, work: WorkFolder, *, progress: bool) -> None:
    """Aligns all pairs that are not done."""
    todo = [task for task in tasks if task.result() is None]
    if settings.runner.runner == "local" and len(todo) <= _FEW_PAIRS:
        for task in todo:
            align_pair(task)
        return
    stages = _load_stages()
    folder = work.path / "pairs"
    for task in todo:
        task.result_path.unlink(missing_ok=True)
    stages.run_stage("pairs", todo, stages.AlignPairs(), settings=settings.runner, results=folder, progress=progress)


def write_shards(
    tasks: Sequence[ShardTask], settings: Preparation, work: WorkFolder, *, size: int, progress: bool
) -> list[ShardEntry]:
    """Writes all shards that are not there, and returns the description of each.

    Args:
      tasks: The shards.
      settings: Where to run.
      work: Where the prepared clips lie.
      size: Bytes of all shards together.
      progress: Whether to show a progress bar.
    """
    todo = [task for task in tasks if task.result() is None]
    for task in todo:
        task.result_path.unlink(missing_ok=True)
    if settings.runner.runner == "local" and size <= _FEW_BYTES:
        for task in todo:
            assemble_shard(task)
    else:
        stages = _load_stages()
        folder = work.path / "shards"
        stages.run_stage(
            "shards", todo, stages.WriteShards(), settings=settings.runner, results=folder, progress=progress
        )
    entries = [task.result() for task in tasks]
    if any(entry is None for entry in entries):
        raise RuntimeError(f"a shard was not written; see {work.path / 'beam.log'}")
    return [entry for entry in entries if entry is not None]


def _is_quick(clips: Sequence[Clip], settings: Preparation) -> bool:
    files = [clip.video for clip in clips if clip.video.is_file()]
    quick = settings.clips.landmarks.backend == "precomputed" and len(files) == len(clips)
    return quick and sum(path.stat().st_size for path in files) <= _FEW_VIDEO_BYTES


def _prepare_apart(clip: Clip, key: str, settings: Preparation, work: WorkFolder) -> None:
    """Prepares one clip in a process of its own, and gives it up if that dies."""
    stages = _load_stages()
    step = stages.PrepareClips(settings.clips, work)
    try:
        stages.run_stage(
            "clip", [clip], step, settings=settings.runner, results=work.path / "clips", progress=False, apart=True
        )
    except stages.WorkerDiedError:
        problem = "the process that prepared it died, twice (out of memory, or a file that crashes the decoder)"
        work.write_status(clip, ClipStatus(clip.clip_id, key, problem=problem))


def _load_stages() -> ModuleType:
    """Imports Beam, which warns on the root logger that Google Cloud's packages are absent."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        from data_prep.prepare import stages
    finally:
        logging.disable(disabled)
    return stages


# Removing the work folder of a finished run so that a kill in the middle of it does no harm.


def remove_work(folder: Path) -> None:
    """Removes a work folder: under its own name it is whole, or not there.

    A folder half removed would hold the status of tasks whose results are gone, and the next run would take them for
    done. What a kill has left of an earlier removal goes too.

    Args:
      folder: The folder, on which nobody is at work any more.
    """
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)
