"""Training, `python -m asccl_jax.main --config configs/asccl.py`: flags, processes, config -> `train.loop.fit`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.contrib.logging import logging_redirect_tqdm

from asccl_jax import process
from asccl_jax.buckets import located, remote_address
from asccl_jax.errors import InputError, WriteError, exit_on_input_error, writing
from asccl_jax.train import command_line
from asccl_jax.train.checkpoints.checkpoint_folder import newest_on_disk
from asccl_jax.train.faults import ends, restarts
from asccl_jax.work import sole_writer

if TYPE_CHECKING:
    from asccl_jax.train.experiment import Experiment
    from asccl_jax.train.faults.heartbeat import Heartbeat
    from asccl_jax.train.run.run_mirror import RunMirror

__all__ = ["main"]

CHECKPOINTS = "checkpoints"

_LOG = logging.getLogger("asccl_jax")


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what the command line asks for and returns the exit status, one of those in `train.fault_tolerance.ends`.

    Args:
      arguments: Words after the program's name; None takes those of the process.

    Raises:
      InputError: Anything wrong with what the user gave.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in ("-h", "--help", "-help") for word in words):
        sys.stdout.write(command_line.help_text())
        return 0
    command = command_line.parse(words)
    _start_logging()
    if command.max_restarts and not restarts.is_supervised():
        return restarts.supervise(
            # The command as it was given, what it says to the interpreter included.
            [sys.executable, *(sys.orig_argv[1:] if arguments is None else ("-m", "asccl_jax.main", *words))],
            restarts.RestartSettings(most=command.max_restarts, together=command.multihost),
            lambda: _newest_checkpoint(command),
        )
    # Before the first import of JAX: XLA reads its flags once, and its threads keep the allocator's first settings.
    process.apply_xla_flags()
    process.keep_freed_memory()
    with logging_redirect_tqdm([_LOG]):
        return _train(command)


def _train(command: command_line.TrainCommand) -> int:
    from asccl_jax.train import runtime

    if command.multihost:
        runtime.connect_processes(
            command.coordinator,
            command.num_processes,
            command.process_id,
            timeout_s=command.join_timeout,
            heartbeat_timeout_s=command.heartbeat_timeout,
        )
    watchdog = runtime.watchdog(
        stall_s=command.stall_timeout,
        lost_s=command.heartbeat_timeout,
        newest=lambda: _newest_checkpoint(command),
    )
    with watchdog:
        return _train_watched(command, watchdog)


def _train_watched(command: command_line.TrainCommand, watchdog: Heartbeat) -> int:
    import jax

    from asccl_jax.train import recipes, runtime
    from asccl_jax.train.run import run_mirror

    if command.multihost:
        runtime.require_ordered_collectives()
        if jax.process_index() > 0:
            _LOG.setLevel(logging.WARNING)
    runtime.use_compilation_cache(command.config.compilation_cache_dir)
    where = remote_address(command.workdir) or command.workdir
    _LOG.info("recipe %s; workdir %s; computing on %s", command.recipe, where, runtime.describe_devices())
    experiment = recipes.build_experiment(command.config)
    with run_mirror.workplace(command.workdir) as (workdir, mirror):
        return _fit(dataclasses.replace(command, workdir=workdir), experiment, watchdog, mirror)


def _fit(
    command: command_line.TrainCommand, experiment: Experiment, watchdog: Heartbeat, mirror: RunMirror | None
) -> int:
    import jax

    _make_directory(command.workdir)
    with contextlib.ExitStack() as held:
        if jax.process_index() == 0 and mirror is None:
            held.enter_context(sole_writer(command.workdir, "--workdir"))
        return _fit_alone(command, experiment, watchdog, mirror)


def _fit_alone(
    command: command_line.TrainCommand, experiment: Experiment, watchdog: Heartbeat, mirror: RunMirror | None
) -> int:
    import jax

    from asccl_jax.train import loop, runtime
    from asccl_jax.train.run import writer

    result = loop.fit(experiment, command.workdir, profile=command.profile, heartbeat=watchdog, mirror=mirror)
    summary = writer.summarise(
        result, input_threads=command.config.data.get("threads"), attempt=restarts.current_attempt()
    )
    if jax.process_index() == 0:
        writer.write_summary(command.workdir, summary)
    if result.stopped_by is not None:
        _LOG.info(
            "stopped by %s after step %d, all saved in %s; the same command goes on from there",
            *(result.stopped_by.name, result.step, mirror.address if mirror else command.workdir),
        )
        return 128 + result.stopped_by
    # Scoring for the report takes as long as it takes.
    watchdog.phase("reporting", watched=False)
    if jax.process_index() == 0:
        _conclude(command, summary, mirror)
    runtime.wait_for_all()
    return 0


def _newest_checkpoint(command: command_line.TrainCommand) -> int | None:
    try:
        return newest_on_disk(located(command.workdir) / CHECKPOINTS)
    except InputError:
        return None  # in a bucket that does not answer


def _make_directory(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--workdir {workdir}: cannot make this folder ({error.strerror}); give another") from error


def _conclude(command: command_line.TrainCommand, summary: dict[str, Any], mirror: RunMirror | None) -> None:
    """Writes the report of a finished run, which shows its summary, and prints how it went."""
    from asccl_jax.buckets import local_directory
    from asccl_jax.evals import report
    from asccl_jax.train.run import writer

    config, workdir = command.config, command.workdir
    trained_s, begin = sum(summary["seconds"].values()), time.monotonic()
    page = _report(
        config.task, workdir, local_directory(config.data.dir), seconds=trained_s, groups=config.report_groups
    )
    summary["seconds"]["reporting"] = time.monotonic() - begin
    writer.write_summary(workdir, summary)
    told = report.conclusion(summary, workdir, page)
    if mirror is not None:
        mirror.name_bucket("report")
        mirror.send()
        told = told.replace(str(workdir), mirror.address)
    sys.stdout.write(told)


def _report(task: str, workdir: Path, records: Path, *, seconds: float, groups: int) -> str:
    """Writes the report and returns where it is, or why there is none: what is trained is trained either way."""
    from asccl_jax.evals import manipulator_report, metric_report, renderer_report

    if groups < 1:
        return "none, as config.report_groups is 0"
    writers: dict[str, Callable[..., Path]] = {
        "metric": metric_report.write_training_report,
        "manipulator": manipulator_report.write_training_report,
        "renderer": renderer_report.write_training_report,
    }
    _LOG.info("scoring what was trained for the report")
    try:
        with writing(workdir / "report"):
            return str(writers[task](workdir, records, seconds=seconds, limit=groups))
    except (InputError, WriteError) as error:
        return f"none: {error}"


def _start_logging() -> None:
    """Sends this project's messages, and warnings of the libraries, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    _LOG.handlers[:] = [handler]
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    # Orbax reports each of its steps on absl's logger, and the traceback of every error there before it raises it.
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("absl").addFilter(_is_not_raised_anyway)


def _is_not_raised_anyway(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


if __name__ == "__main__":
    sys.excepthook = ends.crash
    ends.leave(main())
