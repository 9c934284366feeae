"""Tasks on Apache Beam. Importing this imports Beam."""

from __future__ import annotations

import apache_beam as beam

from data_prep.reconstruct.work import Task

__all__ = ["RunTasks"]


class RunTasks(beam.DoFn):
    """Runs tasks; what they load is kept by the modules that load it, once a process."""

    def process(self, task: Task) -> None:
        """Runs one task."""
        task.run()
