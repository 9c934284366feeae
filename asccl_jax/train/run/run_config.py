"""What a run's folder says of its settings: those its weights were made with, and from which step on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asccl_jax.errors import writing
from asccl_jax.train.checkpoints.checkpoint import config_differences
from asccl_jax.work import write_atomically

__all__ = ["CONFIG_FILE", "HISTORY_FILE", "note_config"]

CONFIG_FILE = "config.json"
"""Settings of the newest steps."""

HISTORY_FILE = "config_history.json"
"""All settings in their order, each with the number of steps done before; only where they have changed."""

_LOG = logging.getLogger(__name__)


def note_config(
    workdir: Path, config: Mapping[str, Any], *, made_with: Mapping[str, Any] | None, step: int, steps: int
) -> None:
    """Writes a run's settings before its next step, and says what has changed since the step before.

    Settings of a run that has nothing left to train make no weights: its files stay as they are.

    Args:
      workdir: Folder of the run.
      config: Settings from now on, as JSON holds them.
      made_with: Those of the checkpoint that the run goes on from; None where it begins.
      step: Steps done.
      steps: Steps in all.

    Raises:
      WriteError: The disk is full, or access is denied.
    """
    changes = [] if made_with is None else config_differences(made_with, config, changeable=())
    if made_with is not None and step >= steps:
        if changes:
            _LOG.warning(
                "all %d steps are done: changed settings have no effect (%s), %s keeps what the weights were made with",
                *(step, "; ".join(changes), CONFIG_FILE),
            )
        return
    with writing(workdir):
        _write_history(workdir / HISTORY_FILE, config, made_with, step, changed=bool(changes))
        write_atomically(workdir / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    if changes:
        _LOG.warning(
            "after step %d settings change: %s (%s has which steps were made with which)",
            *(step, "; ".join(changes), HISTORY_FILE),
        )


def _write_history(
    path: Path, config: Mapping[str, Any], made_with: Mapping[str, Any] | None, step: int, *, changed: bool
) -> None:
    noted: list[Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    # What came after the checkpoint that the run goes on from is done again.
    history = [entry for entry in noted if entry["after_step"] < step]
    if changed:
        history = [*(history or [{"after_step": 0, "config": made_with}]), {"after_step": step, "config": config}]
    if len(history) > 1:
        write_atomically(path, json.dumps(history, indent=2) + "\n")
    elif noted:
        path.unlink()
