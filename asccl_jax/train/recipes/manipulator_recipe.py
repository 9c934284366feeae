"""The recipe of the expression manipulator: `config.task == "manipulator"`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.loader import evaluation_batches
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.data.tracks import CoefficientTrack, read_tracks, template_frame
from asccl_jax.data.windows import CoefficientWindows, window_batches
from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import load_metric
from asccl_jax.geometry.face_regions import lower_face
from asccl_jax.geometry.head_model import HEAD_NAME, load_head_model
from asccl_jax.geometry.shape_images import ShapeRenderer
from asccl_jax.manipulator_settings import ManipulatorSettings
from asccl_jax.saved_manipulator import load_manipulator
from asccl_jax.tasks.manipulator import ManipulatorTask, MeshLoss
from asccl_jax.tasks.mesh_supervision import MeshSupervision
from asccl_jax.train.evaluation import HeldOutBatches
from asccl_jax.train.experiment import Experiment
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.train.recipes.config_entries import computation_dtype, loop_settings, plain_config
from asccl_jax.types import Variables

__all__ = ["manipulator_experiment", "manipulator_task"]

_LOG = logging.getLogger(__name__)


def manipulator_task(config: ConfigDict, *, mesh_loss: MeshLoss | None = None) -> ManipulatorTask:
    """Returns what a recipe trains, without its data.

    Args:
      config: The recipe; `config.steps` is positive.
      mesh_loss: Supervision of the meshes; it needs the data's head.

    Raises:
      InputError: A value that makes no sense, or weights to start from that do not fit.
    """
    return ManipulatorTask(
        settings=ManipulatorSettings.from_dict(config.model.to_dict()),
        optimizer=adam(1.0, b1=0.0, b2=0.99),
        learning_rate=rate_schedule(
            config.learning_rate,
            schedule=config.learning_rate_schedule,
            steps=config.steps,
            epochs=config.epochs,
            falling_epochs=config.falling_epochs,
        ),
        start=_start_variables(config.init_from),
        mesh_loss=mesh_loss,
        mesh_weight=config.mesh.weight,
        mesh_modes=tuple(config.mesh.modes),
        accumulation=loop_settings(config).accumulation,
    )


def manipulator_experiment(config: ConfigDict) -> Experiment:
    """Returns what `loop.fit` runs; see `configs/manipulator.py`."""
    if config.compat not in ("paper", "released"):
        raise InputError(f"config.compat={config.compat!r}: expected paper or released")
    settings = ManipulatorSettings.from_dict(config.model.to_dict())
    tracks = {split: read_tracks(config.data.dir, split=split) for split in ("train", "validation")}
    windows = {
        split: CoefficientWindows(tracks[split], split, window=settings.window, hop=config.data.hop) for split in tracks
    }
    for split, source in windows.items():
        _LOG.info("%s: %r (%s)", split, source, source.describe())
    config = _with_steps(config, len(windows["train"]))
    task = manipulator_task(config, mesh_loss=_mesh_supervision(config, tracks["train"]))
    return Experiment(
        task=task,
        batches=window_batches(
            windows["train"],
            batch_size=config.batch_size,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ),
        held_out=lambda: _held_out_batches(windows["validation"], config),
        settings=loop_settings(config),
        config=plain_config(config),
        baseline=lambda state, mesh: state,
        unit="window",
        task_at=_begun_without_meshes(task, config.mesh.first_step),
        speakers={split: {track.speaker for track in source.tracks} for split, source in windows.items()},
    )


def _begun_without_meshes(task: ManipulatorTask, first_step: int) -> Callable[[int], ManipulatorTask] | None:
    """The task by the steps done, where the supervision of meshes joins late; None where one task does for all."""
    if first_step < 0:
        raise InputError(f"config.mesh.first_step={first_step}: expected at least 0")
    if task.mesh_loss is None or first_step == 0:
        return None
    before = dataclasses.replace(task, mesh_loss=None)
    return lambda step: task if step >= first_step else before


def _with_steps(config: ConfigDict, windows: int) -> ConfigDict:
    """Counts the steps of `config.epochs` where the recipe leaves them open."""
    if config.steps:
        return config
    if windows < config.batch_size:
        raise InputError(f"config.batch_size={config.batch_size}: there are {windows} windows to train on")
    counted = config.copy_and_resolve_references()
    counted.steps = config.epochs * (windows // config.batch_size)
    return counted


def _start_variables(directory: str) -> Variables | None:
    return load_manipulator(directory).variables if directory else None


def _mesh_supervision(config: ConfigDict, tracks: list[CoefficientTrack]) -> MeshSupervision | None:
    """The paper's supervision by the frozen metric; None where no metric is named."""
    mesh = config.mesh
    if mesh.region not in ("face", "lower_face"):
        raise InputError(f"config.mesh.region={mesh.region!r}: expected face or lower_face")
    if not mesh.metric:
        if config.compat == "paper":
            _LOG.warning("no metric (config.mesh.metric): training without the supervision that the paper adds to NED")
        return None
    if config.compat == "released":
        raise InputError("config.mesh.metric is set, but the released code trains without it: use config.compat=paper")
    metric = dataclasses.replace(load_metric(mesh.metric), dtype=computation_dtype(config.get("dtype", "auto")))
    head = load_head_model(mesh.head or Path(config.data.dir) / HEAD_NAME)
    template = _template(config, tracks)
    return MeshSupervision(
        ShapeRenderer(head, template, size=mesh.image_size or metric.settings.image_size),
        metric,
        frames_per_step=mesh.frames_per_step or None,
        within=lower_face(head, template) if mesh.region == "lower_face" else None,
    )


def _template(config: ConfigDict, tracks: list[CoefficientTrack]) -> CodeDict:
    """The one frame whose identity, pose and camera all meshes are drawn with."""
    if config.mesh.template:
        return CodeDict.load(config.mesh.template)[:1]
    return template_frame(config.data.dir, tracks)


def _held_out_batches(source: CoefficientWindows, config: ConfigDict) -> HeldOutBatches:
    devices = jax.device_count()
    batches: Any = evaluation_batches(
        source,
        batch_size=-(-config.evaluation.batch_size // devices) * devices,
        indices=evenly_spaced(range(len(source)), config.evaluation.windows),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=0,
    )
    return batches
