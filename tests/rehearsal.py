"""A dress rehearsal of the paper's scale on one machine: `python -m tests.rehearsal [--clips N]`.

Tiny videos in MEAD's layout, as many as the paper trained on, are prepared, opened, shuffled and trained on, killed and
gone on with; and records with renders are opened. What grows with the number of clips, lists and tables, is as large as
the real thing; pictures are not. DIR/rehearsal.md and DIR/rehearsal.json say what each stage took. What was done is not
done again.
"""

import argparse
import contextlib
import csv
import dataclasses
import io
import itertools
import json
import os
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from asccl_jax.data.manifest import MANIFEST_NAME, read_manifest
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.work import is_made, making

VERSION = 1
EMOTIONS = ("neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised")
SENTENCES, SPEAKERS, MOST_CLIPS = 30, 36, 7560
SIZE, FPS = 64, 30
CHECKPOINT_EVERY = 5
BATCHES = 200

_LOOK_S = 0.1
_NAMES = (
    *("W021", "M005", "M003", "M007", "M009", "M011", "M012", "M013", "M019", "M022", "M023", "M024"),
    *("M025", "M026", "M027", "M028", "M029", "M030", "M031", "M032", "M033", "M034", "W009", "W011"),
    *("W014", "W015", "W016", "W018", "W019", "W023", "W024", "W025", "W026", "W028", "W029", "W033"),
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one part of a stage took.

    Attributes:
      part: Its name.
      seconds: Wall time.
      peak_mb: Most memory of all its processes together (resident, pages that they share counted by each).
      read_mb: What they read, from disk or cache.
      written_mb: What they wrote.
      files: Files that lie in the stage's folder then.
      folder_mb: Their bytes.
    """

    part: str
    seconds: float
    peak_mb: float
    read_mb: float
    written_mb: float
    files: int
    folder_mb: float


class Rehearsal:
    """Stages by name, each a method that yields the figures of its parts.

    Args:
      folder: Where all of it lies.
      clips: How many, about.
      frames: Of each.
      workers: Processes of the preparation.
    """

    def __init__(self, folder, *, clips, frames, workers):
        self.folder, self.frames, self.workers = folder, frames, workers
        speakers = max(2, min(SPEAKERS, round(clips / (len(EMOTIONS) * SENTENCES))))
        sentences = max(1, min(SENTENCES, clips // (len(EMOTIONS) * speakers)))
        self.speakers = _NAMES[:speakers]
        self.sentences = [f"{number:03d}" for number in range(1, sentences + 1)]
        self.videos, self.records, self.rendered = (folder / name for name in ("videos", "records", "rendered"))
        self.landmarks, self.run = folder / "landmarks", folder / "run"

    @property
    def clips(self):
        return len(self.speakers) * len(EMOTIONS) * len(self.sentences)

    def stages(self):
        return {
            "videos": self.make_videos,
            "prepare": self.prepare,
            "open": lambda: self._child("open", self.records),
            "shuffle": lambda: self._child("shuffle", self.records),
            "train": self.train,
            "renders": lambda: self._child("renders", self.rendered),
            "open-renders": lambda: self._child("open-renders", self.rendered),
            "tracks": lambda: self._child("tracks", self.folder / "tracks"),
        }

    def make_videos(self):
        """Some recordings of each sentence, of which every speaker has links."""
        yield from self._child("videos", self.videos)

    def prepare(self):
        """Killed with all workers when a third of the clips are done; the same command goes on."""
        words = ["asccl_jax.cli", "prepare", self.videos, "--layout=mead", "--landmarks=precomputed", "--quiet"]
        words += [f"--transcripts={self.folder / 'transcripts.csv'}", f"--image-size={SIZE}"]
        words += [f"--landmarks-dir={self.landmarks}", f"--output={self.records}", f"--workers={self.workers}"]
        done = self.records / "work" / "clips"

        def a_third():
            return sum(entry.name.endswith(".json") for entry in _entries(done)) >= self.clips // 3

        if not (self.records / MANIFEST_NAME).is_file():
            yield self._watch("prepare, killed after a third", words, self.records, until=a_third)
        yield self._watch("prepare, gone on", words, self.records)

    def train(self):
        """From the command to the first step; killed after a checkpoint; from the command to the first new step."""
        from tests.launched import last_step

        words = ["asccl_jax.main", "--config=configs/asccl.py:smoke", f"--workdir={self.run}"]
        entries = {"data.dir": self.records, "report_groups": 0, "steps": 1_000_000, "evaluate_every": 1_000_000}
        entries |= {"checkpoint_every": CHECKPOINT_EVERY, "compilation_cache_dir": self.folder / "compiled"}
        words += [f"--config.{name}={value}" for name, value in entries.items()]
        saved = self.run / "checkpoints"

        def checkpoint():
            return any(entry.name.isdecimal() and int(entry.name) > 1 for entry in _entries(saved))

        for part in ("train, to the first step", "train, gone on after kill -9"):
            before = last_step(self.run) if self.run.is_dir() else 0

            def moved(before=before):
                return last_step(self.run) > before

            yield self._watch(part, words, self.run, until=moved, then=checkpoint)

    def _child(self, stage, folder):
        words = ["tests.rehearsal", f"--only={stage}", f"--output={self.folder}", f"--clips={self.clips}"]
        yield self._watch(stage, [*words, f"--frames={self.frames}"], folder)

    def _watch(self, part, words, folder, *, until=None, then=lambda: True):
        """Runs a command to its end, or until something holds, whose time counts, and kills it once another does."""
        from tests.faults.processes import Attempt

        logs = self.folder / "logs" / f"{time.time_ns()}-{part.split(',')[0]}"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        begin_s, seconds = time.monotonic(), None
        attempt = Attempt([sys.executable, "-m", *words], logs, environment=environment)
        use = _Use(attempt.number)
        try:
            while attempt.is_running():
                use.look()
                if seconds is None and until is not None and until():
                    seconds = time.monotonic() - begin_s
                if seconds is not None and then():
                    break
                time.sleep(_LOOK_S)
            else:
                seconds = seconds or time.monotonic() - begin_s
                end = attempt.finish()
                if end.status:
                    raise InputError(f"{part}: ended with status {end.status}: {end.log[-2000:]}")
        finally:
            attempt.end()
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        peak_mb, read_mb, written_mb = (round(value / 1e6, 1) for value in use.figures())
        return Figures(part, round(seconds, 2), peak_mb, read_mb, written_mb, len(sizes), round(sum(sizes) / 1e6, 1))


class _Use:
    """Memory and traffic of the processes of a session, as last seen."""

    def __init__(self, session):
        self._session = session
        self._traffic = {}
        self._peak = 0

    def look(self):
        from tests.faults.processes import in_session

        memory = 0
        for number, _ in in_session(self._session):
            with contextlib.suppress(OSError, ValueError, KeyError):
                folder = Path("/proc") / str(number)
                memory += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                counts = dict(line.split(": ") for line in (folder / "io").read_text().splitlines())
                self._traffic[number] = int(counts["rchar"]), int(counts["wchar"])
        self._peak = max(self._peak, memory)

    def figures(self):
        return self._peak, *(sum(values) for values in zip(*self._traffic.values(), strict=True))


def _entries(folder):
    return list(os.scandir(folder)) if folder.is_dir() else []


def _make_videos(rehearsal):
    from data_prep.media.decode import SAMPLE_RATE
    from tests.data_prep.tiny_media import voice, write_landmarks, write_sound, write_video

    made = rehearsal.folder / "recordings"
    made.mkdir(exist_ok=True)
    for (tempo, emotion), sentence in itertools.product(enumerate(EMOTIONS), rehearsal.sentences):
        stem = made / f"{emotion}-{sentence}"
        if not stem.with_suffix(".npz").is_file():
            samples, _ = voice(int(sentence), tempo=tempo or None, pauses=(0.02, 0.02))
            samples = samples[: rehearsal.frames * SAMPLE_RATE // FPS]
            write_video(stem.with_suffix(".mp4"), rehearsal.frames, samples=samples, size=SIZE, first=int(sentence))
            write_sound(stem.with_suffix(".m4a"), samples)
            write_landmarks(stem.with_suffix(".npz"), rehearsal.frames, size=SIZE)
        for speaker in rehearsal.speakers:
            level = "level_1" if emotion == "neutral" else "level_3"
            places = {
                ".mp4": rehearsal.videos / speaker / "video" / "front" / emotion / level,
                ".m4a": rehearsal.videos / speaker / "audio" / emotion / level,
                ".npz": rehearsal.landmarks / speaker / emotion,
            }
            for suffix, place in places.items():
                path = place / f"{sentence}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.link(stem.with_suffix(suffix), path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["speaker", "emotion", "clip", "sentence"])
    writer.writerows(["", "", sentence, f"sentence {sentence}"] for sentence in rehearsal.sentences)
    (rehearsal.folder / "transcripts.csv").write_text(text.getvalue())


def _open(rehearsal):
    from asccl_jax.data.pairs import FramePairs

    return FramePairs(rehearsal.records, "train")


def _shuffle(rehearsal):
    from asccl_jax.data.loader import training_batches

    batches = training_batches(_open(rehearsal), batch_size=8, seed=0)
    for _ in range(BATCHES):
        next(batches)


def _write_renders(rehearsal):
    """Renders of a few kilobytes beside the frames; the first of each clip is not to be trusted."""
    from asccl_jax.data.dataset import begin_dataset, finish_dataset, read_frame_shard, write_render_shard
    from asccl_jax.data.records import index_path
    from tests.data.tiny_dataset import render_record

    manifest, directory = read_manifest(rehearsal.records), begin_dataset(rehearsal.rendered)
    entries, renders = [], {}
    padding = np.random.default_rng(0).bytes(2000)
    for split, shards in manifest.splits.items():
        clips = sorted(
            (clip.shard, clip.first_record, name) for name, clip in manifest.clips.items() if clip.split == split
        )
        renders[split] = []
        for number, shard in enumerate(shards.frames):
            for path in (rehearsal.records / shard.name, index_path(rehearsal.records / shard.name)):
                (directory / path.name).unlink(missing_ok=True)
                os.link(path, directory / path.name)
            entries.append(read_frame_shard(directory, split, number, len(shards.frames)))
            records = (
                dataclasses.replace(render_record(name, frame), flags=4 if frame == 0 else 0, nmfc_image=padding)
                for of_shard, _, name in clips
                if of_shard == number
                for frame in manifest.clips[name].positions().tolist()
            )
            renders[split].append(write_render_shard(directory, split, number, len(shards.frames), records))
    finish_dataset(directory, name="rehearsal", shards=entries, renders=renders)


def _open_renders(rehearsal):
    from asccl_jax.data.aligned_frames import RecordClips

    RecordClips(rehearsal.rendered)


def _read_tracks(rehearsal):
    """The first step of `asccl data reconstruct RECORDS`, which reads every clip once."""
    from data_prep.reconstruct.clip_inputs import find_inputs
    from data_prep.reconstruct.reconstruct_settings import Reconstruction
    from data_prep.reconstruct.task_runs import run_tasks
    from data_prep.reconstruct.track_step import TrackTask
    from data_prep.reconstruct.work import WorkFolder

    settings = Reconstruction(source=rehearsal.records, output=rehearsal.folder / "tracks")
    work = WorkFolder(settings.output)
    work.make()
    items, _, _ = find_inputs(settings)
    tasks = [TrackTask(item, settings.track, work) for item in items]
    run_tasks("landmarks", tasks, settings.runner, progress=False)


CHILDREN = {
    "videos": _make_videos,
    "open": _open,
    "shuffle": _shuffle,
    "renders": _write_renders,
    "open-renders": _open_renders,
    "tracks": _read_tracks,
}


def table(figures):
    """Returns figures as a table of Markdown."""
    lines = ["| stage | time | peak memory | read | written | files | bytes |", "|---|---|---|---|---|---|---|"]
    for row in figures:
        lines.append(
            f"| {row.part} | {row.seconds:,.1f} s | {row.peak_mb:,.0f} MB | {row.read_mb:,.1f} MB |"
            f" {row.written_mb:,.1f} MB | {row.files:,} | {row.folder_mb:,.1f} MB |"
        )
    return "\n".join(lines) + "\n"


@exit_on_input_error
def main(arguments=None):
    options = _parser().parse_args(arguments)
    for name, least in (("clips", 14), ("frames", 4), ("workers", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} {getattr(options, name)}: expected at least {least}")
    if options.clips > MOST_CLIPS:
        raise InputError(f"--clips {options.clips}: expected at most {MOST_CLIPS:,}, as the paper trained on")
    rehearsal = Rehearsal(
        options.output.absolute(), clips=options.clips, frames=options.frames, workers=options.workers
    )
    if options.only is not None:
        CHILDREN[options.only](rehearsal)
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(options.output).free
    if free < rehearsal.clips * 1_000_000:
        raise InputError(f"--output {options.output}: {free / 1e9:.1f} GB free, {rehearsal.clips / 1e3:.1f} GB wanted")
    figures = _rehearse(rehearsal)
    counted = _counts(rehearsal)
    content = {**counted, "cores": os.cpu_count(), "stages": [dataclasses.asdict(row) for row in figures]}
    (options.output / "rehearsal.json").write_text(json.dumps(content, indent=1) + "\n")
    page = f"{', '.join(f'{value:,} {name}' for name, value in counted.items())}\n\n{table(figures)}"
    (options.output / "rehearsal.md").write_text(page)
    print(f"\n{page}\n{options.output / 'rehearsal.md'}")
    return 0


def _rehearse(rehearsal):
    """Does what is left to do and returns the figures of all stages."""
    figures = []
    noted = rehearsal.folder / "figures"
    noted.mkdir(exist_ok=True)
    before = {"version": VERSION, "clips": rehearsal.clips, "frames": rehearsal.frames}
    for name, stage in rehearsal.stages().items():
        before = {**before, "after": [*before.get("after", []), name]}
        path = noted / f"{name}.json"
        if not is_made(path, before):
            print(f"{name} ...", flush=True)
            with making(path, before):
                path.write_text(json.dumps([dataclasses.asdict(row) for row in stage()]))
        figures += [Figures(**row) for row in json.loads(path.read_text())]
    return figures


def _counts(rehearsal):
    manifest = read_manifest(rehearsal.records)
    return {
        "clips": len(manifest.clips),
        "frames": sum(split.records("frames") for split in manifest.splits.values()),
        "clip pairs": sum(split.records("pairs") for split in manifest.splits.values()),
    }


def _parser():
    parser = argparse.ArgumentParser(prog="bash launch/rehearsal.sh", description=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("--clips", type=int, default=MOST_CLIPS, metavar="N", help=f"about how many clips ({MOST_CLIPS:,})")
    add("--frames", type=int, default=16, metavar="N", help="frames of a clip (16)")
    add("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes of the preparation (all cores)")
    add("--output", type=Path, default=Path("runs/rehearsal"), metavar="DIR", help="folder (runs/rehearsal)")
    add("--only", choices=CHILDREN, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
