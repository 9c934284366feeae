"""A reconstruction from end to end: find clips, their landmarks, shapes of speakers, codes and pictures, records."""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from asccl_jax.data.dataset import (
    ClipSource,
    RenderShard,
    ShardEntry,
    begin_dataset,
    finish_dataset,
    read_pairs,
    write_frame_shard,
    write_render_shard,
)
from asccl_jax.data.manifest import ClipEntry, Manifest, Shard, kind_directory
from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import ClipPairRecord, FrameRecord, RenderRecord
from asccl_jax.errors import InputError
from asccl_jax.head.head_model import HEAD_NAME
from asccl_jax.work import write_atomically
from data_prep.head_fit.head_assets import export_head
from data_prep.media.clips import Problem
from data_prep.media.landmarks import make_backend
from data_prep.prepare.stage_workers import remove_work
from data_prep.reconstruct.clip_inputs import InputClip, find_inputs
from data_prep.reconstruct.clip_step import ClipTask, Placing
from data_prep.reconstruct.encoders import head_assets, make_encoder
from data_prep.reconstruct.folders import stored_codes_folder
from data_prep.reconstruct.reconstruct_report import Outcome, write_report
from data_prep.reconstruct.reconstruct_settings import Reconstruction
from data_prep.reconstruct.speaker_step import SpeakerTask, speaker_file_name
from data_prep.reconstruct.task_runs import run_tasks
from data_prep.reconstruct.track_step import Track, TrackTask
from data_prep.reconstruct.work import Step, Task, WorkFolder, digest

__all__ = [
    "ShardTask",
    "finish_records",
    "plan_shards",
    "reconstruct",
]

# Finished clips into a data set of records: shards of frames and renders side by side, the manifest last.


@dataclasses.dataclass(frozen=True)
class ShardTask(Task):
    """Writes a shard of frames and the shard of their renders.

    Attributes:
      output: Directory of the data set.
      split: Split of the shard.
      number: Its number in the split.
      count: Shards of the split.
      clips: File names of its clips in the work folder, in the order of their ids.
      keys: Keys of these clips.
    """

    output: Path
    split: str
    number: int
    count: int
    clips: tuple[str, ...]
    keys: tuple[str, ...]
    work: WorkFolder
    step: Step = "shards"

    @property
    def name(self) -> str:
        """Split and number."""
        return f"{self.split}-{self.number:05d}"

    @functools.cached_property
    def key(self) -> str:
        """See `Task`."""
        return digest(self.split, self.number, self.count, self.keys, "flags noted")

    def is_done(self) -> bool:
        """See `Task`; both files must be there, too."""
        status = self.work.status(self.step, self.name, self.key)
        if status is None:
            return False
        files = (
            self.output / status["entry"]["shard"]["name"],
            self._render_folder / status["renders"]["shard"]["name"],
        )
        return status["problem"] is not None or all(path.is_file() for path in files)

    @property
    def _render_folder(self) -> Path:
        return kind_directory(self.output, "renders")

    def compute(self) -> dict[str, Any]:
        """Writes both shards."""
        place = (self.output, self.split, self.number, self.count)
        entry = write_frame_shard(*place, (FrameRecord.decode(data) for data in self._source("frames")))
        renders = write_render_shard(*place, (RenderRecord.decode(data) for data in self._source("renders")))
        return {"entry": dataclasses.asdict(entry), "renders": dataclasses.asdict(renders)}

    def _source(self, kind: str) -> RecordSource:
        return RecordSource([self.work.file("clips", name, f".{kind}.tfrecord") for name in self.clips])

    def result(self) -> tuple[ShardEntry, RenderShard]:
        """Returns what the manifest is to say of both shards."""
        status = self.work.status(self.step, self.name, self.key)
        if status is None or status["problem"] is not None:
            reason = "was not written" if status is None else status["problem"]
            raise RuntimeError(f"shard {self.name}: {reason}; give the same command again")
        entry = status["entry"]
        clips = {name: ClipEntry.from_fields(clip) for name, clip in entry["clips"].items()}
        frames = ShardEntry(**{**entry, "shard": Shard(**entry["shard"]), "clips": clips})
        renders = status["renders"]
        flags = {clip: tuple((value, count) for value, count in runs) for clip, runs in renders["flags"].items()}
        return frames, RenderShard(Shard(**renders["shard"]), flags)


def plan_shards(
    items: Sequence[InputClip],
    statuses: Mapping[str, Mapping[str, Any]],
    *,
    output: Path,
    work: WorkFolder,
    shard_bytes: int,
) -> list[ShardTask]:
    """Returns the shards of all splits, filled one after the other with the clips in the order of their ids."""
    filled: dict[str, list[list[InputClip]]] = collections.defaultdict(lambda: [[]])
    sizes: dict[str, int] = collections.defaultdict(int)
    for item in sorted(items, key=lambda item: item.name):
        size = statuses[item.name]["record_bytes"]
        if filled[item.split][-1] and sizes[item.split] + size > shard_bytes:
            filled[item.split].append([])
            sizes[item.split] = 0
        filled[item.split][-1].append(item)
        sizes[item.split] += size
    return [
        ShardTask(
            output=output,
            split=split,
            number=number,
            count=len(shards),
            clips=tuple(item.clip.file_name for item in members),
            keys=tuple(statuses[item.name]["key"] for item in members),
            work=work,
        )
        for split, shards in sorted(filled.items())
        for number, members in enumerate(shards)
    ]


def finish_records(
    output: Path,
    tasks: Sequence[ShardTask],
    items: Sequence[InputClip],
    statuses: Mapping[str, Mapping[str, Any]],
    *,
    name: str,
    settings: Mapping[str, Any],
) -> Manifest:
    """Writes the manifest over finished shards; pairs of clips of an input data set are taken along."""
    results = [task.result() for task in tasks]
    renders: dict[str, list[RenderShard]] = collections.defaultdict(list)
    for entry, shard in results:
        renders[entry.split].append(shard)
    sources = {
        item.name: ClipSource(statuses[item.name]["fps"], "" if item.kind == "records" else item.clip.video.name)
        for item in items
    }
    return finish_dataset(
        output,
        name=name,
        shards=[entry for entry, _ in results],
        sources=sources,
        pairs=_pairs(items),
        renders=renders,
        settings=settings,
    )


def _pairs(items: Sequence[InputClip]) -> dict[str, list[ClipPairRecord]]:
    kept = {item.name for item in items}
    splits = {(item.clip.video, item.split) for item in items if item.kind == "records"}
    found: dict[str, list[ClipPairRecord]] = {}
    for directory, split in sorted(splits):
        pairs = [pair for pair in read_pairs(directory, split) if {pair.query_clip, pair.key_clip} <= kept]
        if pairs:
            found[split] = pairs
    return found


Statuses = dict[str, dict[str, Any]]


def reconstruct(settings: Reconstruction, *, progress: bool = True) -> Outcome:
    """Makes code dicts and pictures of all clips, and returns what became of each.

    An interrupted run goes on where it stopped. Equal inputs and settings give equal files, whatever the number of
    workers, parts and interruptions.

    Args:
      settings: What to make of what.
      progress: Whether to show progress bars (on a terminal only).

    Raises:
      InputError: A setting or the input as a whole is wrong, or no clip can be used.
    """
    items, problems, layout = find_inputs(settings)
    settings = dataclasses.replace(settings, layout=layout)
    _load_all(settings, items)
    work = WorkFolder(begin_dataset(settings.output) / "work")
    work.make()
    part, parts = settings.shard
    mine = items[part - 1 :: parts]
    speakers = {item.clip.speaker for item in mine}
    related = [item for item in items if item.clip.speaker in speakers]
    tracks = _track(related, settings, work, progress=progress)
    shapes = _shape(related, tracks, settings, work, progress=progress)
    statuses = _codes(mine, related, tracks, shapes, settings, work, progress=progress)
    problems = problems + _problems(mine, statuses)
    outcome = Outcome(settings=settings, items=mine, statuses=statuses, problems=problems, shapes=shapes)
    if parts > 1:
        return outcome
    usable = outcome.usable
    if not usable:
        _fail(outcome, work)
    export_head(head_assets(settings.encoder.assets), settings.output / HEAD_NAME)
    if settings.layout_out == "records":
        tasks = plan_shards(usable, statuses, output=settings.output, work=work, shard_bytes=settings.shard_bytes)
        run_tasks("shards", tasks, settings.runner, progress=progress)
        finish_records(settings.output, tasks, usable, statuses, name=settings.title, settings=settings.described())
    else:
        _write_frame_lists(outcome)
    write_report(outcome, work)
    if not settings.keep_work:
        remove_work(work.path)
    return outcome


def _load_all(settings: Reconstruction, items: Sequence[InputClip]) -> None:
    """Lets every wrong setting fail now rather than after hours."""
    head_assets(settings.encoder.assets)
    if not all(_has_codes(item) for item in items):
        make_encoder(settings.encoder)
        if any(item.kind != "records" for item in items):
            make_backend(settings.track.landmarks).close()


def _track(items: Sequence[InputClip], settings: Reconstruction, work: WorkFolder, *, progress: bool) -> Statuses:
    tasks = {item.name: TrackTask(item, settings.track, work) for item in items}
    run_tasks("landmarks", list(tasks.values()), settings.runner, progress=progress)
    return {name: _status(task) for name, task in tasks.items()}


def _shape(
    items: Sequence[InputClip], tracks: Statuses, settings: Reconstruction, work: WorkFolder, *, progress: bool
) -> Statuses:
    """Shapes of the speakers by name; none where each frame keeps its own."""
    if settings.encoder.encoder == "deca" and not settings.encoder.freeze_shape:
        return {}
    usable: dict[str, list[InputClip]] = collections.defaultdict(list)
    for item in items:
        if tracks[item.name]["problem"] is None and not _has_codes(item):
            usable[item.clip.speaker].append(item)
    tasks = {}
    for speaker, clips in usable.items():
        neutral = [item for item in clips if item.clip.emotion == "neutral"]
        chosen = neutral or clips
        keys = tuple(tracks[item.name]["key"] for item in chosen)
        tasks[speaker] = SpeakerTask(tuple(chosen), bool(neutral), keys, settings.track, settings.encoder, work)
    run_tasks("speakers", list(tasks.values()), settings.runner, progress=progress)
    return {speaker: _status(task) for speaker, task in tasks.items()}


def _codes(
    items: Sequence[InputClip],
    related: Sequence[InputClip],
    tracks: Statuses,
    shapes: Statuses,
    settings: Reconstruction,
    work: WorkFolder,
    *,
    progress: bool,
) -> Statuses:
    statuses, tasks = {}, {}
    first = _first_numbers(related, tracks)
    # Fewer clips than cores: a long video is often the only one.
    threads = max(1, settings.runner.workers // len(items)) if settings.runner.runner == "local" and items else 1
    for item in items:
        shape = shapes.get(item.clip.speaker)
        problem = tracks[item.name]["problem"]
        if problem is None and shape is not None and shape["problem"] is not None:
            problem = f"shape of {item.clip.speaker}: {shape['problem']}"
        if problem is not None:
            statuses[item.name] = {"key": "", "problem": problem}
            continue
        speaker = None
        if shape is not None and not _has_codes(item):
            speaker = (speaker_file_name(item.clip.speaker), shape["key"])
        tasks[item.name] = ClipTask(
            item,
            tracks[item.name]["key"],
            speaker,
            settings.track,
            settings.encoder,
            _placing(item, first[item.name], settings),
            work,
            threads,
        )
    run_tasks("clips", list(tasks.values()), settings.runner, progress=progress)
    return statuses | {name: _status(task) for name, task in tasks.items()}


def _placing(item: InputClip, first: int, settings: Reconstruction) -> Placing:
    if settings.layout_out == "records":
        return Placing(settings.output)
    folder = settings.output / speaker_file_name(item.clip.speaker)
    return Placing(folder, folders=True, first=first, train=settings.train_folders)


def _first_numbers(items: Sequence[InputClip], tracks: Statuses) -> dict[str, int]:
    """Number of each clip's first frame within its subject; every clip that can be read takes its numbers."""
    following: dict[str, int] = collections.defaultdict(int)
    first = {}
    for item in sorted(items, key=lambda item: item.name):
        first[item.name] = following[item.clip.speaker]
        following[item.clip.speaker] += tracks[item.name].get("frames", 0)
    return first


def _status(task: Task) -> dict[str, Any]:
    status = task.work.status(task.step, task.name, task.key)
    return status or {"key": task.key, "problem": "never finished"}


def _has_codes(item: InputClip) -> bool:
    return item.kind == "folders" and stored_codes_folder(item.clip.video) is not None


def _problems(items: Sequence[InputClip], statuses: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    problems = []
    for item in items:
        status = statuses[item.name]
        if status["problem"] is not None:
            problems.append(Problem(item.name, status["problem"]))
            continue
        problems += [Problem(item.name, note, "kept") for note in status["notes"]]
    return problems


def _write_frame_lists(outcome: Outcome) -> None:
    """Writes, for each subject, which clip and frame each number is."""
    rows: dict[Path, list[list[Any]]] = collections.defaultdict(list)
    for item in sorted(outcome.usable, key=lambda item: item.name):
        folder = outcome.settings.output / speaker_file_name(item.clip.speaker)
        track = Track.load(folder / "tracks" / f"{item.clip.file_name}.npz")
        for row, index in enumerate(track.frame_index.tolist()):
            number = outcome.statuses[item.name]["first_number"] + row
            rows[folder].append([f"{number:06d}", item.name, index, f"{track.time_s[row]:.4f}"])
    for folder, lines in rows.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["number", "clip", "frame", "time_s"])
        writer.writerows(lines)
        write_atomically(folder / "frames.csv", text.getvalue())


def _fail(outcome: Outcome, work: WorkFolder) -> NoReturn:
    """Writes the report and raises what is wrong with the input as a whole."""
    page = write_report(outcome, work)
    reasons = collections.Counter(problem.reason for problem in outcome.problems if problem.outcome == "dropped")
    common = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3)) or "no reason was found"
    count = len(outcome.items)
    raise InputError(
        f"{outcome.settings.source}: none of {count} clips can be used: {common}. All reasons are in {page}"
    )
