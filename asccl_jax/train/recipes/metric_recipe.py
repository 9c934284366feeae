"""The recipe of the correlation metric: `config.task == "metric"`."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from asccl_jax.data.loader import evaluation_batches, training_batches
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import load_metric
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.metric import MetricTask
from asccl_jax.train.evaluation import HeldOutBatches
from asccl_jax.train.experiment import Experiment
from asccl_jax.train.optimizer import adam
from asccl_jax.train.recipes.config_entries import computation_dtype, loop_settings, plain_config
from asccl_jax.train.sharding import place
from asccl_jax.types import TrainState, Variables

__all__ = ["metric_experiment", "metric_settings", "metric_task"]

_LOG = logging.getLogger(__name__)
_SETTLING_BATCHES = 8
"""Training batches from which an untrained network takes its BatchNorm statistics before it is scored."""


def metric_settings(config: ConfigDict) -> MetricSettings:
    """Returns the metric of a recipe: `config.compat` with what `config.model` sets on top.

    In `config.model` None stands for "as `compat` says"; `bn_group_size` 0 stands for the global batch.

    Raises:
      InputError: A value that makes no sense.
    """
    overrides = {name: value for name, value in config.model.to_dict().items() if value is not None}
    if overrides.get("bn_group_size") == 0:
        overrides["bn_group_size"] = None
    return MetricSettings.from_compat(config.compat, **overrides)


def metric_task(config: ConfigDict) -> MetricTask:
    """Returns what a recipe trains, without its data.

    Args:
      config: The recipe; `config.steps` is positive.

    Raises:
      InputError: A value that makes no sense, or weights to start from that do not fit.
    """
    settings = metric_settings(config)
    return MetricTask(
        settings=settings,
        optimizer=adam(config.learning_rate, schedule=config.learning_rate_schedule, steps=config.steps),
        dtype=computation_dtype(config.dtype),
        start=_start_variables(config.init_from, settings),
        evaluation_draws=config.evaluation.draws,
        accumulation=loop_settings(config).accumulation,
    )


def metric_experiment(config: ConfigDict) -> Experiment:
    """Returns what `loop.fit` runs; see `configs/asccl.py`."""
    max_hold = config.data.max_hold or None
    source = FramePairs(config.data.dir, "train", pairing=config.data.pairing, max_hold=max_hold, seed=config.seed)
    held_out = FramePairs(config.data.dir, "validation", max_hold=max_hold)
    config = _with_steps(config, len(source))
    loop = loop_settings(config)
    task = metric_task(config)
    _LOG.info("training on %r, evaluating on %r", source, held_out)

    def settled(state: TrainState, mesh: Mesh) -> TrainState:
        with contextlib.closing(_training_batches(source, config)) as batches:
            first = itertools.islice(batches, _SETTLING_BATCHES)
            return task.settle_statistics(state, (place(batch, mesh) for batch in first))

    return Experiment(
        task=task,
        batches=_training_batches(source, config),
        held_out=lambda: _held_out_batches(held_out, config),
        settings=loop,
        config=plain_config(config),
        baseline=settled,
        speakers={split: source.frames.manifest.speakers(split) for split in ("train", "validation")},
    )


def _with_steps(config: ConfigDict, pairs: int) -> ConfigDict:
    """Counts the steps of `config.epochs` where the recipe leaves them open; a batch may span two epochs."""
    if config.steps:
        return config
    counted = config.copy_and_resolve_references()
    counted.steps = config.epochs * pairs // max(config.batch_size, 1)
    if counted.steps < 1 <= config.batch_size:
        raise InputError(
            f"config.epochs={config.epochs} of {pairs} frame pairs are no batch of {config.batch_size}: give more"
            " epochs or a smaller batch"
        )
    return counted


def _start_variables(directory: str, settings: MetricSettings) -> Variables | None:
    if not directory:
        return None
    metric = load_metric(directory)
    if metric.settings.channel_order != settings.channel_order:
        _LOG.warning(
            "config.init_from=%s was trained on %s images, this run is on %s",
            *(directory, metric.settings.channel_order, settings.channel_order),
        )
    return metric.variables


def _training_batches(source: FramePairs, config: ConfigDict) -> Any:
    return training_batches(
        source,
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
        prefetch=config.data.prefetch,
    )


def _held_out_batches(source: FramePairs, config: ConfigDict) -> HeldOutBatches:
    devices = jax.device_count()
    return evaluation_batches(
        source,
        batch_size=-(-config.evaluation.batch_size // devices) * devices,
        indices=evenly_spaced(range(len(source)), config.evaluation.pairs),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
    )
