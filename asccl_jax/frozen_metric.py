"""A trained metric on disk: a folder with its settings and its weights, which appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import jax

from asccl_jax.models.correlation import FrozenMetric, init_variables
from asccl_jax.saved_weights import WeightsFormat, load_weights, save_weights
from asccl_jax.settings import MetricSettings

__all__ = ["FORMAT_VERSION", "FrozenMetric", "load_metric", "save_metric"]

FORMAT_VERSION = 1
_LAYOUT = WeightsFormat("metric", FORMAT_VERSION, saver="save_metric")


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
    save_weights(directory, _LAYOUT, variables=metric.variables, settings=metric.settings.to_dict())


def load_metric(path: str | Path) -> FrozenMetric:
    """Returns the metric saved in a folder, or in `best/` (else `last/`) of a training run's folder.

    Raises:
      InputError: No metric there, another format version, or weights that do not fit its settings; all that do not fit
        are listed.
    """
    variables, settings = load_weights(
        path,
        _LAYOUT,
        read_settings=MetricSettings.from_dict,
        fresh_variables=lambda settings: init_variables(settings, jax.random.key(0)),
    )
    return FrozenMetric(variables=variables, settings=settings)
