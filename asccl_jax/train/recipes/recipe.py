"""From a config to an experiment: which task's recipe it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from asccl_jax.data.fetched import local_directory
from asccl_jax.errors import InputError
from asccl_jax.remote_folder import remote_address
from asccl_jax.train.experiment import Experiment
from asccl_jax.train.recipes.manipulator_recipe import manipulator_experiment
from asccl_jax.train.recipes.metric_recipe import metric_experiment
from asccl_jax.train.recipes.renderer_recipe import renderer_experiment

__all__ = ["build_experiment"]


def build_experiment(config: ConfigDict) -> Experiment:
    """Returns what `loop.fit` runs.

    Args:
      config: A recipe as in `configs/`, with `config.task` naming the task.

    Raises:
      InputError: A value that makes no sense, or data or weights that are missing or do not fit.
    """
    builders: Mapping[str, Callable[[ConfigDict], Experiment]] = {
        "metric": metric_experiment,
        "manipulator": manipulator_experiment,
        "renderer": renderer_experiment,
    }
    if config.task not in builders:
        raise InputError(f"config.task={config.task!r}: expected one of {', '.join(builders)}")
    build = builders[config.task]
    if remote_address(config.data.dir) is None:
        return build(config)
    here = config.copy_and_resolve_references()
    here.data.dir = str(local_directory(config.data.dir))
    experiment = build(here)
    # What the run notes of itself holds on another machine, too.
    data = {**experiment.config["data"], "dir": config.data.dir}
    return dataclasses.replace(experiment, config={**experiment.config, "data": data})
