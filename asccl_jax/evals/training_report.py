"""The report that ends a training run, whatever its task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from asccl_jax.errors import InputError, WriteError, writing
from asccl_jax.evals import manipulator_report, metric_report, renderer_report

__all__ = ["write_report"]

_LOG = logging.getLogger(__name__)


def write_report(task: str, workdir: Path, records: Path, *, seconds: float, groups: int) -> str:
    """Writes the report and returns where it is, or why there is none: what is trained is trained either way.

    Args:
      task: Whose report, "metric", "manipulator" or "renderer".
      workdir: Folder of the run.
      records: Its data set.
      seconds: Wall time of the training.
      groups: Most examples to score; none writes no report.
    """
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
