"""The steps of a preparation that run on Apache Beam, and how they are run.

Three kinds of task: prepare a clip, write a shard, align some pairs. Each leaves its result as a file in the work
folder, where the main process, and a run that resumes, find it. So any Beam runner will do whose workers see the
output directory.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from tqdm import tqdm

from asccl_jax.errors import InputError
from data_prep.clip_records import ClipSettings, WorkFolder, prepare_clip
from data_prep.clips import Clip
from data_prep.landmarks import LandmarkBackend, make_backend
from data_prep.pair_alignment import PairTask, align_pair
from data_prep.settings import RunnerSettings
from data_prep.shard_assembly import ShardTask, assemble_shard

__all__ = ["AlignPairs", "PrepareClips", "WriteShards", "run_stage"]


class PrepareClips(beam.DoFn):
    """Prepares clips.

    Args:
      settings: How.
      work: Where the results go.
    """

    def __init__(self, settings: ClipSettings, work: WorkFolder) -> None:
        self._settings, self._work = settings, work
        self._backend: LandmarkBackend | None = None

    def setup(self) -> None:
        """Loads the landmark back end, once a worker."""
        self._backend = make_backend(self._settings.landmarks)

    def process(self, clip: Clip) -> None:
        """Prepares one clip."""
        assert self._backend is not None
        prepare_clip(clip, self._settings, self._backend, self._work)

    def teardown(self) -> None:
        """Ends what the back end holds."""
        if self._backend is not None:
            self._backend.close()


class WriteShards(beam.DoFn):
    """Writes shards out of the prepared clips."""

    def process(self, task: ShardTask) -> None:
        """Writes one shard."""
        assemble_shard(task)


class AlignPairs(beam.DoFn):
    """Aligns pairs of prepared clips."""

    def process(self, task: PairTask) -> None:
        """Aligns one pair."""
        align_pair(task)


def run_stage(
    name: str, tasks: Sequence[Any], step: beam.DoFn, *, settings: RunnerSettings, results: Path, progress: bool = True
) -> None:
    """Runs a step over tasks and returns when all are done.

    Args:
      name: Of the stage, for the progress bar.
      tasks: What to do; can be pickled.
      step: How to do it.
      settings: Where to run.
      results: Folder in which each finished task leaves one more `.json` file.
      progress: Whether to show a progress bar (on a terminal only).

    Raises:
      InputError: Beam refuses its options.
    """
    if not tasks:
        return
    try:
        pipeline = _make_pipeline(settings, len(tasks), log=results.parent / "beam.log")
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"Beam cannot use --runner {settings.runner} ({str(error).splitlines()[0]})") from error
    _ = pipeline | "Tasks" >> beam.Create(list(tasks)) | beam.Reshuffle() | name.title() >> beam.ParDo(step)
    with _progress_bar(name, len(tasks), results, show=progress), _quiet_beam():
        pipeline.run().wait_until_finish()


def _make_pipeline(settings: RunnerSettings, tasks: int, *, log: Path) -> beam.Pipeline:
    words = ["--default_sdk_harness_log_level=WARNING", *shlex.split(settings.beam_options)]
    if settings.runner != "local":
        return beam.Pipeline(options=PipelineOptions([*words, f"--runner={settings.runner}"]))
    # Beam's own name for this, `DirectRunner`, would first try to download the Go runner Prism; `FnApiRunner` is
    # inside the Python package.
    workers = max(1, min(settings.workers, tasks))
    if workers == 1:
        return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(words))
    # What `--direct_running_mode=multi_processing` starts, but with the workers' chatter in a file.
    python, chatter = shlex.quote(sys.executable), shlex.quote(str(log.resolve()))
    command = f"exec {python} -m apache_beam.runners.worker.sdk_worker_main 2>>{chatter}"
    runner = FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))
    return beam.Pipeline(runner=runner, options=PipelineOptions([*words, f"--direct_num_workers={workers}"]))


@contextlib.contextmanager
def _quiet_beam() -> Iterator[None]:
    """Keeps Beam's account of its own workings out of the terminal; errors pass."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _progress_bar(name: str, total: int, results: Path, *, show: bool) -> Iterator[None]:
    """Shows how many result files there are more than at the start, until the block ends."""

    def count() -> int:
        return sum(path.suffix == ".json" and not path.name.startswith(".") for path in results.iterdir())

    start, ended = count(), threading.Event()
    with tqdm(total=total, desc=name, unit="task", disable=None if show else True) as bar:

        def follow() -> None:
            while not ended.wait(0.5):
                bar.update(count() - start - bar.n)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            bar.update(count() - start - bar.n)
