"""The recipe of the neural renderer: `config.task == "renderer"`."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from asccl_jax.data.clip_sources import open_clips
from asccl_jax.data.held_out import training_and_held_out
from asccl_jax.data.loader import evaluation_batches
from asccl_jax.data.picture_values import to_image
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.data.sequences import Lengths, RenderSequences, sequence_batches, training_stages
from asccl_jax.data.strips import strip
from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import load_metric
from asccl_jax.renderer_settings import RendererSettings
from asccl_jax.saved_renderer import load_renderer
from asccl_jax.saved_vgg import load_vgg
from asccl_jax.tasks.frame_adversaries import FrameAdversaries
from asccl_jax.tasks.frame_supervision import FrameSupervision, VggDistance
from asccl_jax.tasks.renderer import RendererTask
from asccl_jax.train.evaluation import HeldOutBatches
from asccl_jax.train.experiment import Experiment
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.train.recipes.config_entries import computation_dtype, loop_settings, plain_config
from asccl_jax.types import TrainState, Variables

__all__ = ["renderer_experiment", "renderer_task"]

_LOG = logging.getLogger(__name__)
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
        start=_start_variables(config.init_from),
    )


def renderer_experiment(config: ConfigDict) -> Experiment:
    """Returns what `loop.fit` runs; see `configs/renderer.py`."""
    training, held_out = _sequences(config)
    lengths = Lengths(config.data.length, config.data.longest, config.data.epochs_per_length)
    config = _with_steps(config, training, lengths)
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
        held_out=lambda: _held_out_batches(held_out, config),
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


def _with_steps(config: ConfigDict, training: RenderSequences, lengths: Lengths) -> ConfigDict:
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


def _start_variables(directory: str) -> Variables | None:
    return load_renderer(directory).params if directory else None


def _held_out_batches(source: RenderSequences, config: ConfigDict) -> HeldOutBatches:
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
