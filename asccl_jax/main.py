"""Training, `python -m asccl_jax.main --config configs/asccl.py`: flags, processes, config -> `train.loop.fit`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.contrib.logging import logging_redirect_tqdm

from asccl_jax import host_memory, xla_flags
from asccl_jax.errors import InputError, WriteError, exit_on_input_error, writing
from asccl_jax.train import command_line

if TYPE_CHECKING:
    from asccl_jax.train.loop import FitResult

__all__ = ["main"]

_LOG = logging.getLogger("asccl_jax")


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what the command line asks for and returns the exit status: 0, 1 (diverged, full disk), 2, 128 + signal.

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
    # Before the first import of JAX: XLA reads its flags once, and its threads keep the allocator's first settings.
    xla_flags.apply()
    host_memory.keep_freed_memory()
    with logging_redirect_tqdm([_LOG]):
        return _train(command)


def _train(command: command_line.TrainCommand) -> int:
    import jax

    from asccl_jax.train import loop, recipe, runtime

    if command.multihost:
        runtime.connect_processes(command.coordinator, command.num_processes, command.process_id)
        if jax.process_index() > 0:
            _LOG.setLevel(logging.WARNING)
    runtime.use_compilation_cache(command.config.compilation_cache_dir)
    _LOG.info("workdir %s; computing on %s", command.workdir, runtime.describe_devices())
    experiment = recipe.build_experiment(command.config)
    _make_directory(command.workdir)
    try:
        result = loop.fit(experiment, command.workdir)
    except loop.DivergedError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if result.stopped_by is not None:
        _LOG.info(
            "stopped by %s after step %d, all saved in %s; the same command goes on from there",
            *(result.stopped_by.name, result.step, command.workdir),
        )
        return 128 + result.stopped_by
    if jax.process_index() == 0:
        report = _report(command, result.seconds)
        sys.stdout.write(_summary(result, command.workdir, report))
    runtime.wait_for_all()
    return 0


def _make_directory(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--workdir {workdir}: cannot make this folder ({error.strerror}); give another") from error


def _report(command: command_line.TrainCommand, seconds: float) -> str:
    """Writes the report and returns where it is, or why there is none: what is trained is trained either way."""
    from asccl_jax.evals import manipulator_report, metric_report, renderer_training_report

    groups = command.config.report_groups
    if groups < 1:
        return "none, as config.report_groups is 0"
    writers: dict[str, Callable[..., Path]] = {
        "metric": metric_report.write_training_report,
        "manipulator": manipulator_report.write_training_report,
        "renderer": renderer_training_report.write_training_report,
    }
    write = writers[command.config.task]
    _LOG.info("scoring what was trained for the report")
    try:
        with writing(command.workdir / "report"):
            page = write(command.workdir, Path(command.config.data.dir), seconds=seconds, limit=groups)
        return str(page)
    except (InputError, WriteError) as error:
        return f"none: {error}"


def _summary(result: FitResult, workdir: Path, report: str) -> str:
    minutes, seconds = divmod(round(result.seconds), 60)
    speed = f" at {result.steps_per_s:.3g} steps/s" if result.steps_per_s else ""
    best = f" (step {result.best_step}, held-out score {result.best_score:.3f})" if result.best_step else ""
    return (
        f"trained to step {result.step} in {minutes} min {seconds} s{speed}\n"
        f"report: {report}\nbest:   {workdir / 'best'}{best}\nlast:   {workdir / 'last'}\n"
    )


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
    sys.exit(main())
