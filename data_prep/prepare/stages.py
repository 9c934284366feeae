"""The steps of a preparation that run on Apache Beam, and how they are run.

Three kinds of task: prepare a clip, write a shard, align some pairs. Each leaves its result as a file in the work
folder, where the main process, and a run that resumes, find it. So any Beam runner will do whose workers see the
output directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from asccl_jax.errors import InputError
from asccl_jax.progress import ProgressBar
from data_prep.media.clips import Clip
from data_prep.media.landmarks import LandmarkBackend, make_backend
from data_prep.prepare.clip_records import ClipSettings, ShardTask, WorkFolder, assemble_shard, prepare_clip
from data_prep.prepare.pairing import PairTask, align_pair
from data_prep.prepare.prepare_settings import RunnerSettings

__all__ = ["AlignPairs", "PrepareClips", "WorkerDiedError", "WriteShards", "run_stage"]


_WORKER_LOG_LEVEL = "--default_sdk_harness_log_level=WARNING"
_LOG, _WORKER_PIDS = "beam.log", "workers.pid"
_BEAM_THREADS = ("run_worker", "beam_control_read", "read_grpc_client_inputs")
"""Threads in which Beam learns that a worker is gone."""


class WorkerDiedError(RuntimeError):
    """A worker process ended before its time."""


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
    name: str,
    tasks: Sequence[Any],
    step: beam.DoFn,
    *,
    settings: RunnerSettings,
    results: Path,
    progress: bool = True,
    apart: bool = False,
) -> None:
    """Runs a step over tasks and returns when all are done.

    Args:
      name: Of the stage, for the progress bar.
      tasks: What to do; can be pickled.
      step: How to do it.
      settings: Where to run.
      results: Folder in which each finished task leaves one more `.json` file.
      progress: Whether to show a progress bar (on a terminal only).
      apart: Keep the tasks of a local run out of this process, even if there is one worker only.

    Raises:
      InputError: Beam refuses its options.
      WorkerDiedError: A worker process of a local run ended before its time.
    """
    if not tasks:
        return
    workers = max(1, min(settings.workers, len(tasks)))
    several = settings.runner == "local" and (workers > 1 or apart)
    scratch = results.parent
    try:
        pipeline = _several_processes(settings, workers, scratch) if several else _one_process(settings)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"Beam cannot use --runner {settings.runner} ({str(error).splitlines()[0]})") from error
    _ = pipeline | "Tasks" >> beam.Create(list(tasks)) | beam.Reshuffle() | name.title() >> beam.ParDo(step)
    with _progress_bar(name, len(tasks), results, show=progress), _quiet_beam():
        if several:
            _run_watched(pipeline, scratch)
        else:
            pipeline.run().wait_until_finish()


def _one_process(settings: RunnerSettings) -> beam.Pipeline:
    """A pipeline in this process, or on the runner that the user names."""
    words = [_WORKER_LOG_LEVEL, *shlex.split(settings.beam_options)]
    # Beam's own name for this, `DirectRunner`, would first try to download the Go runner Prism; `FnApiRunner` is
    # inside the Python package.
    if settings.runner == "local":
        return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(words))
    return beam.Pipeline(options=PipelineOptions([*words, f"--runner={settings.runner}"]))


def _several_processes(settings: RunnerSettings, workers: int, scratch: Path) -> beam.Pipeline:
    """What `--direct_running_mode=multi_processing` starts, with the workers' chatter and numbers in files."""
    (scratch / _WORKER_PIDS).unlink(missing_ok=True)
    folder = scratch.resolve()
    python, chatter, pids = (_shell_word(path) for path in (sys.executable, folder / _LOG, folder / _WORKER_PIDS))
    threads = max(1, (os.cpu_count() or 1) // workers)  # or PyTorch would take all cores in each worker
    command = (
        f"echo $$ >>{pids}; export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{threads}}};"
        f" exec {python} -m apache_beam.runners.worker.sdk_worker_main 2>>{chatter}"
    )
    words = [_WORKER_LOG_LEVEL, *shlex.split(settings.beam_options), f"--direct_num_workers={workers}"]
    environment = SubprocessSDKEnvironment.from_command_string(command)
    return beam.Pipeline(runner=FnApiRunner(default_environment=environment), options=PipelineOptions(words))


def _shell_word(path: str | Path) -> str:
    """A path in a command; Beam passes commands on as UTF-8, which not all names are."""
    name = os.fsencode(path)
    try:
        return shlex.quote(name.decode())
    except UnicodeDecodeError:
        return "\"$(printf '%b' '" + "".join(f"\\0{byte:03o}" for byte in name) + "')\""


def _run_watched(pipeline: beam.Pipeline, scratch: Path) -> None:
    """Runs a pipeline of several processes; Beam by itself would wait for a dead worker for ever."""
    ended, died = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            errors.append(error)
        finally:
            ended.set()

    def note_death(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and failure.thread.name in _BEAM_THREADS:
            died.set()
        else:
            before(failure)

    before, threading.excepthook = threading.excepthook, note_death
    try:
        threading.Thread(target=run, name="beam pipeline", daemon=True).start()
        while not ended.wait(0.1):
            if died.is_set():
                raise WorkerDiedError(f"a worker process died; its last words are in {scratch / _LOG}")
    finally:
        if not ended.is_set():
            # Given up or interrupted: what Beam says of its broken connections now helps nobody.
            logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
            _end_workers(scratch / _WORKER_PIDS)
            ended.wait(2)
        threading.excepthook = before
    if errors:
        raise errors[0]


def _end_workers(pids: Path) -> None:
    """Ends the worker processes of this run that are still there."""
    for pid in pids.read_text().split() if pids.is_file() else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)


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
    with ProgressBar(total=total, desc=name, unit="task", disable=not show) as bar:

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
