"""Recipes: what a config makes of each task, its data, network, optimiser and evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8
from ml_collections import ConfigDict

from asccl_jax.buckets import local_directory, remote_address
from asccl_jax.data.aligned_frames import open_clips
from asccl_jax.data.codes import CodeDict
from asccl_jax.data.frames import strip, to_image
from asccl_jax.data.held_out import training_and_held_out
from asccl_jax.data.loader import evaluation_batches, training_batches
from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.sequences import Lengths, RenderSequences, sequence_batches, training_stages
from asccl_jax.data.tracks import CoefficientTrack, read_tracks, template_frame
from asccl_jax.data.windows import CoefficientWindows, window_batches
from asccl_jax.errors import InputError
from asccl_jax.head.face_points import lower_face
from asccl_jax.head.head_model import HEAD_NAME, load_head_model
from asccl_jax.head.shape_images import ShapeRenderer
from asccl_jax.settings import ManipulatorSettings, MetricSettings, RendererSettings
from asccl_jax.tasks.frame_losses import FrameAdversaries, FrameSupervision, VggDistance
from asccl_jax.tasks.manipulator_task import ManipulatorTask, MeshLoss, MeshSupervision
from asccl_jax.tasks.metric_task import MetricTask
from asccl_jax.tasks.renderer_task import RendererTask
from asccl_jax.train.evaluation import HeldOutBatches
from asccl_jax.train.experiment import Experiment, LoopSettings
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.train.sharding import place
from asccl_jax.types import TrainState, Variables
from asccl_jax.weights import load_manipulator, load_metric, load_renderer, load_vgg

__all__ = [
    "build_experiment",
    "computation_dtype",
    "loop_settings",
    "manipulator_experiment",
    "manipulator_task",
    "metric_experiment",
    "metric_settings",
    "metric_task",
    "plain_config",
    "renderer_experiment",
    "renderer_task",
]

# What recipes of all tasks have in common: entries of a config as values of this package.


def computation_dtype(name: str) -> Any:
    """Returns the type that `config.dtype` names; "auto" is float32 on CPU and bfloat16 elsewhere.

    Raises:
      InputError: Another name.
    """
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in dtypes:
        raise InputError(f"config.dtype={name!r}: expected auto, float32 or bfloat16")
    return dtypes[name]


def loop_settings(config: ConfigDict) -> LoopSettings:
    """Returns how long to train, and how often to do what.

    Raises:
      InputError: A count that is not positive.
    """
    names = [field.name for field in dataclasses.fields(LoopSettings)]
    # A recipe of one's own may leave out what has a default.
    return LoopSettings(**{name: config[name] for name in names if name in config})


def plain_config(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON holds it: nested mappings, lists, numbers, text."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(entry) for name, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(entry) for entry in value]
        return value

    return plain(config.to_dict())


# The recipe of the correlation metric: `config.task == "metric"`.

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


# The recipe of the expression manipulator: `config.task == "manipulator"`.


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
        start=_manipulator_start(config.init_from),
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
    config = _with_manipulator_steps(config, len(windows["train"]))
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
        held_out=lambda: _held_out_windows(windows["validation"], config),
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


def _with_manipulator_steps(config: ConfigDict, windows: int) -> ConfigDict:
    """Counts the steps of `config.epochs` where the recipe leaves them open."""
    if config.steps:
        return config
    if windows < config.batch_size:
        raise InputError(f"config.batch_size={config.batch_size}: there are {windows} windows to train on")
    counted = config.copy_and_resolve_references()
    counted.steps = config.epochs * (windows // config.batch_size)
    return counted


def _manipulator_start(directory: str) -> Variables | None:
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


def _held_out_windows(source: CoefficientWindows, config: ConfigDict) -> HeldOutBatches:
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


# The recipe of the neural renderer: `config.task == "renderer"`.

_PICTURED = 3
"""Held-out sequences drawn at every evaluation."""


def renderer_task(config: ConfigDict) -> RendererTask:
    """Returns what a recipe trains, without its data.

    Args:
      config: The recipe; `config.steps` is positive.

    Raises:
      InputError: A value that makes no sense, or weights that are missing or do not fit.
    """
    return RendererTask(
        settings=RendererSettings(**config.model.to_dict()),
        optimizer=adam(1.0, b1=0.5, b2=0.999),
        learning_rate=rate_schedule(config.learning_rate, schedule=config.learning_rate_schedule, steps=config.steps),
        supervision=_supervision(config),
        adversaries=_adversaries(config),
        pixel_weight=config.pixel_weight,
        chunk=config.chunk,
        sequences=config.batch_size,
        backpropagate_frames=config.backpropagate_frames,
        remat=config.remat,
        accumulation=loop_settings(config).accumulation,
        dtype=computation_dtype(config.dtype),
        start=_renderer_start(config.init_from),
    )


def renderer_experiment(config: ConfigDict) -> Experiment:
    """Returns what `loop.fit` runs; see `configs/renderer.py`."""
    training, held_out = _sequences(config)
    lengths = Lengths(config.data.length, config.data.longest, config.data.epochs_per_length)
    config = _with_renderer_steps(config, training, lengths)
    task = renderer_task(config)
    return Experiment(
        task=task,
        batches=sequence_batches(
            training,
            batch_size=config.batch_size,
            seed=config.seed,
            lengths=lengths,
            noise=config.data.noise,
            fresh_start_share=config.data.fresh_start_share,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=config.data.threads,
            prefetch=config.data.prefetch,
        ),
        held_out=lambda: _held_out_sequences(held_out, config),
        settings=loop_settings(config),
        config=plain_config(config),
        baseline=lambda state, mesh: state,
        unit="chunk",
        pictures=_pictures(task, held_out),
        speakers={"train": training.speakers(), "validation": held_out.speakers()},
    )


def _sequences(config: ConfigDict) -> tuple[RenderSequences, RenderSequences]:
    """Returns what is trained on and what is held out."""
    if config.data.region not in ("face", "head"):
        raise InputError(f"config.data.region={config.data.region!r}: expected face or head")
    clips = open_clips(
        config.data.dir,
        image_size=config.model.image_size,
        detail=config.data.detail,
        region=config.data.region,
        cache_bytes=config.data.cache_mb << 20,
    )
    training, held_out = training_and_held_out(
        clips,
        speakers=config.data.speakers,
        frames_per_sequence=config.data.frames_per_sequence,
        length=config.data.length,
        chunk=config.chunk,
    )
    if training.items == held_out.items:
        _LOG.warning("no clip is long enough to be divided: what is scored is what is trained on")
    _LOG.info("training on %r, evaluating on %r, %d px", training, held_out, clips.image_size)
    return training, held_out


def _with_renderer_steps(config: ConfigDict, training: RenderSequences, lengths: Lengths) -> ConfigDict:
    """Counts the steps of `config.epochs` where the recipe leaves them open; later epochs have fewer, longer items."""
    if config.steps:
        return config
    counted, left = config.copy_and_resolve_references(), config.epochs
    for stage in training_stages(training, lengths, batch_size=config.batch_size):
        epochs = left if stage.batches is None else min(left, lengths.epochs)
        counted.steps += stage.chunks * (epochs * len(stage.items) // config.batch_size)
        left -= epochs
    return counted


def _supervision(config: ConfigDict) -> FrameSupervision:
    if config.compat not in ("paper", "released"):
        raise InputError(f"config.compat={config.compat!r}: expected paper or released")
    dtype = computation_dtype(config.dtype)
    metric = dataclasses.replace(load_metric(config.metric.path), dtype=dtype) if config.metric.path else None
    if metric is None:
        _LOG.warning("no metric (config.metric.path): training without the supervision that the paper adds to NED")
    perceptual: VggDistance | Literal["trunk"] | None = None
    if config.perceptual.vgg:
        perceptual = VggDistance(dataclasses.replace(load_vgg(config.perceptual.vgg), dtype=dtype))
    elif metric is not None:
        _LOG.info("no VGG-19 (config.perceptual.vgg): the metric's trunk is the perceptual loss")
        perceptual = "trunk"
    return FrameSupervision(
        metric=metric,
        metric_weight=config.metric.weight,
        perceptual=perceptual,
        perceptual_weight=config.perceptual.weight,
        compat=config.compat,
    )


def _adversaries(config: ConfigDict) -> FrameAdversaries:
    if config.adversarial.mode not in ("ls", "hinge"):
        raise InputError(f"config.adversarial.mode={config.adversarial.mode!r}: expected ls or hinge")
    return FrameAdversaries(
        adversarial_weight=config.adversarial.weight,
        feature_matching_weight=config.adversarial.feature_matching_weight,
        gan_mode=config.adversarial.mode,
    )


def _renderer_start(directory: str) -> Variables | None:
    return load_renderer(directory).params if directory else None


def _held_out_sequences(source: RenderSequences, config: ConfigDict) -> HeldOutBatches:
    devices = jax.device_count()
    return evaluation_batches(
        source,
        batch_size=-(-config.evaluation.batch_size // devices) * devices,
        indices=evenly_spaced(range(len(source)), config.evaluation.sequences),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=0,
    )


def _pictures(
    task: RendererTask, source: RenderSequences
) -> Callable[[TrainState], dict[str, UInt8[np.ndarray, "y x 3"]]]:
    """Returns what draws held-out frames, the first and the last of some sequences, under the true ones."""
    draw = jax.jit(task.draw)

    @functools.cache
    def batch() -> Any:
        return source.batch(evenly_spaced(range(len(source)), _PICTURED))

    def pictures(state: TrainState) -> dict[str, UInt8[np.ndarray, "y x 3"]]:
        # On the host in between: a state of several processes is not this one's to compute with alone.
        fake, real = jax.device_get(draw(jax.device_get(state.params), batch()))
        ends = (0, -1)
        rows = [[to_image(frames[row, end]) for row in range(len(frames)) for end in ends] for frames in (real, fake)]
        return {"held_out": strip(rows)}

    return pictures


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
