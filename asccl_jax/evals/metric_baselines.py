"""Rows that a learned metric has to beat: the same network untrained, and plain differences of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from jaxtyping import Float

from asccl_jax.data.manifest import read_manifest
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.data.selection import evenly_spaced
from asccl_jax.evals.contrasts import REGIONS
from asccl_jax.evals.metric_scores import Frames
from asccl_jax.frozen_metric import FrozenMetric
from asccl_jax.sampling import Box
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.metric import MetricTask

__all__ = ["pixel_differences", "untrained_metric"]

WARMING_PASSES = 40
WARMING_BATCH = 4


def untrained_metric(settings: MetricSettings, directory: Path, *, split: str, seed: int = 0) -> FrozenMetric:
    """Returns the network at its random start, with the running statistics its weights have on real images.

    Forty forward passes of training images settle the statistics; where a data set has no training pairs, those of the
    evaluated split do.

    Args:
      settings: Network to initialise.
      directory: Data set.
      split: Split to take images from where "train" has no pairs.
      seed: Seed of the weights, as a training run would take it.

    Raises:
      InputError: Neither split has aligned pairs.
    """
    manifest = read_manifest(directory)
    trainable = "train" in manifest.splits and manifest.split("train").records("pairs")
    pairs = FramePairs(directory, "train" if trainable else split)
    # A pass sees one image of each pair: queries and keys alternate, as they do in training.
    chosen = np.resize(
        evenly_spaced(range(len(pairs)), WARMING_PASSES * WARMING_BATCH // 2), (WARMING_PASSES // 2, WARMING_BATCH)
    )
    task = MetricTask(settings, optax.identity())
    state = task.settle_statistics(task.init(jax.random.key(seed)), (pairs.batch(rows) for rows in chosen))
    return FrozenMetric(variables={"params": state.params, "batch_stats": state.batch_stats}, settings=settings)


def pixel_differences(frames: Frames, comparisons: Sequence[ComparisonRecord]) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns the mean absolute difference of query and key in units of the full range, whole and by part of the face.

    The keys are the names in `contrasts.REGIONS`.
    """
    rows = []
    for record in comparisons:
        query = frames.image(record.query_clip, record.query_frame)
        key = frames.image(record.key_clip, record.key_frame)
        difference = np.abs(query.astype(np.float32) - key.astype(np.float32)) / 255
        rows.append([float(_cut(difference, box).mean()) for box in REGIONS.values()])
    return dict(zip(REGIONS, np.array(rows, np.float64).reshape(-1, len(REGIONS)).T, strict=True))


def _cut(image: Float[np.ndarray, "h w 3"], box: Box | None) -> Float[np.ndarray, "h2 w2 3"]:
    if box is None:
        return image
    height, width = image.shape[:2]
    rows = slice(round(box[0] * height), round(box[1] * height))
    columns = slice(round(box[2] * width), round(box[3] * width))
    return image[rows, columns]
