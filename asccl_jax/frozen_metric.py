"""A trained metric on disk: a folder with its settings and its weights, which appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from asccl_jax.errors import InputError, writing
from asccl_jax.models.correlation import FrozenMetric, init_variables
from asccl_jax.settings import MetricSettings
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Variables

__all__ = ["FORMAT_VERSION", "FrozenMetric", "load_metric", "save_metric"]

FORMAT_VERSION = 1
_DESCRIPTION = "metric.json"
_VARIABLES = "variables"


def save_metric(directory: str | Path, metric: FrozenMetric) -> None:
    """Writes a metric as `metric.json` and `variables/`, replacing what was there only once the new one is whole.

    Killed at any moment it leaves a whole metric, the old one or the new one, where `load_metric` finds it.
    With several processes every one may call this; the first writes.

    Args:
      directory: Folder to make or replace.
      metric: Metric whose variables and settings are saved.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    if jax.process_index() != 0:
        return
    directory = Path(directory).absolute()
    with writing(directory):
        _save(directory, metric)


def _save(directory: Path, metric: FrozenMetric) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    replaced = _replaced(directory)
    if not directory.exists() and (replaced / _DESCRIPTION).is_file():
        replaced.rename(directory)  # an earlier save was killed between its two renames
    _remove(unfinished)
    _remove(replaced)
    unfinished.mkdir()
    with _checkpointer() as checkpointer:
        checkpointer.save(unfinished / _VARIABLES, jax.device_get(metric.variables))
    description = {"format_version": FORMAT_VERSION, "settings": metric.settings.to_dict()}
    (unfinished / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    if directory.exists():
        directory.rename(replaced)
    unfinished.rename(directory)
    _remove(replaced)


def load_metric(path: str | Path) -> FrozenMetric:
    """Returns the metric saved in a folder, or in `best/` (else `last/`) of a training run's folder.

    Raises:
      InputError: No metric there, another format version, or weights that do not fit its settings; all that do not fit
        are listed.
    """
    directory = _find(Path(path).absolute())
    description = _read_description(directory / _DESCRIPTION)
    settings = MetricSettings.from_dict(description["settings"])
    expected = jax.eval_shape(lambda: init_variables(settings, jax.random.key(0)))
    with _checkpointer() as checkpointer:
        _check_shapes(checkpointer, expected, directory)
        # NumPy arrays as the target: the weights come back on the host, whatever devices saved them.
        target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), expected)
        variables = checkpointer.restore(directory / _VARIABLES, target)
    return FrozenMetric(variables=variables, settings=settings)


def _checkpointer() -> ocp.StandardCheckpointer:
    # The calling process works alone: no barrier with the others, which may be elsewhere.
    alone = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=f"metric{alone}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=options)


def _replaced(directory: Path) -> Path:
    """Returns where a metric stands while the one that replaces it takes its name."""
    return directory.with_name(f".{directory.name}.replaced")


def _remove(directory: Path) -> None:
    # The description goes first: what has none is never taken for a whole metric.
    (directory / _DESCRIPTION).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _find(path: Path) -> Path:
    for directory in (path, path / "best", path / "last"):
        for candidate in (directory, _replaced(directory)):
            if (candidate / _DESCRIPTION).is_file():
                return candidate
    if not path.is_dir():
        raise InputError(f"metric {path}: no such directory; give one that save_metric or training wrote")
    raise InputError(
        f"metric {path}: no {_DESCRIPTION} there, nor in its best/ or last/; give a directory that save_metric or "
        "training wrote, or convert a PyTorch checkpoint with `asccl convert metric`"
    )


def _read_description(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error}); save the metric again") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION or not isinstance(description.get("settings"), dict):
        raise InputError(f"{file}: format version {version}, expected {FORMAT_VERSION} with settings; save it again")
    return description


def _check_shapes(checkpointer: ocp.StandardCheckpointer, expected: Variables, directory: Path) -> None:
    if not (directory / _VARIABLES).is_dir():
        raise InputError(f"metric {directory}: its {_VARIABLES}/ is missing; copy or save it again")
    saved = checkpointer.metadata(directory / _VARIABLES).item_metadata.tree
    differences = shape_differences(named_shapes(saved), named_shapes(expected))
    if differences:
        raise InputError(f"metric {directory}: its weights do not fit its settings: {'; '.join(differences)}")
