"""Running the tasks of a step: here, in several processes, or on any Beam runner; and what if a process dies."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from asccl_jax.progress import ProgressBar
from data_prep.prepare.prepare_settings import RunnerSettings
from data_prep.reconstruct.work import Task, counting_frames

__all__ = ["run_tasks"]


def run_tasks(name: str, tasks: Sequence[Task], runner: RunnerSettings, *, progress: bool) -> None:
    """Runs those tasks that are not done, and returns when all have left a status.

    A task that kills its process (a decoder that crashes, no memory) is found by running those that were under way one
    by one, and given up.

    Args:
      name: Of the step, for the progress bar.
      tasks: Of one step.
      runner: Where to run; with one local worker that is this process.
      progress: Whether to show a progress bar (on a terminal only).
    """
    todo = [task for task in tasks if not task.is_done()]
    for task in todo:
        task.work.file(task.step, task.name, ".json").unlink(missing_ok=True)
        task.mark.unlink(missing_ok=True)
    if runner.runner == "local" and (runner.workers == 1 or len(todo) <= 1):
        # A single task is shown by its frames alone.
        hidden = len(todo) == 1 or not progress
        with counting_frames(progress):
            for task in ProgressBar(todo, desc=name, unit="task", disable=hidden):
                task.run()
        return
    while todo:
        stages, beam_tasks = _load_beam()
        step, results = beam_tasks.RunTasks(), _results(todo)
        try:
            stages.run_stage(name, todo, step, settings=runner, results=results, progress=progress)
        except stages.WorkerDiedError:
            suspects = [task for task in todo if task.mark.exists() and not task.is_done()]
            if not suspects:
                raise
            for task in suspects:
                _run_apart(task, runner)
            todo = [task for task in todo if not task.is_done()]
        else:
            return


def _run_apart(task: Task, runner: RunnerSettings) -> None:
    """Runs a task in a process of its own, and gives it up if that dies."""
    stages, beam_tasks = _load_beam()
    alone = dataclasses.replace(runner, workers=1)
    try:
        stages.run_stage(
            "task",
            [task],
            beam_tasks.RunTasks(),
            settings=alone,
            results=_results([task]),
            progress=False,
            apart=True,
        )
    except stages.WorkerDiedError:
        task.give_up("the process that worked on it died, twice (out of memory, or a file that crashes the decoder)")


def _results(tasks: Sequence[Task]) -> Path:
    return tasks[0].work.path / tasks[0].step


def _load_beam() -> tuple[ModuleType, ModuleType]:
    """Imports Beam, which warns on the root logger that Google Cloud's packages are absent."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        from data_prep.prepare import stages
        from data_prep.reconstruct import beam_tasks
    finally:
        logging.disable(disabled)
    return stages, beam_tasks
