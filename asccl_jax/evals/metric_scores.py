"""Losses and retrieval of a frozen metric on frame comparisons, at fixed locations.

The protocol is the same for every network: running statistics, the inside-border rule, weight 1, several fixed draws of
locations averaged. Each distinct image goes through the network once: embeddings at the fixed locations are kept until
its last comparison.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int, UInt8

from asccl_jax.data.manifest import evenly_spaced, read_manifest
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.schema import ComparisonRecord
from asccl_jax.evals.contrasts import REGIONS
from asccl_jax.losses.contrastive import neighbour_disparities, patch_nce
from asccl_jax.models.correlation import FrozenMetric, prepare_images
from asccl_jax.sampling import NEIGHBOUR_OFFSETS, Box, location_region, map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.metric_task import MetricTask
from asccl_jax.types import Locations

__all__ = [
    "DRAWS",
    "Frames",
    "MetricScores",
    "chance_level",
    "count_images",
    "evaluation_locations",
    "evaluation_metric",
    "metric_losses",
    "pixel_differences",
    "score_comparisons",
    "untrained_metric",
]

DRAWS = 8
"""Draws of locations that are averaged; the mean over images of a single draw still varies by some 8 %."""

BATCH = 16

CONFINED_STAGES = 3

FrameName: TypeAlias = tuple[str, int]
StackedLocations: TypeAlias = tuple[Int[Array, "draws _ 2"], ...]
"""`Locations` of several draws."""

Embeddings: TypeAlias = tuple[Float[np.ndarray, "draws _ _"], ...]
"""One image's unit embeddings at all fixed locations: the stages of every region, one after the other."""


@runtime_checkable
class Frames(Protocol):
    """Random access to decoded frames; `asccl_jax.data` has one for records."""

    def image(self, clip: str, frame: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a stored frame, RGB."""
        ...


@dataclasses.dataclass(frozen=True)
class MetricScores:
    """Scores of comparisons per stage, averaged over locations and draws.

    Attributes:
      nce: PatchNCE with weight 1.
      top1: Share of disparities whose nearest key disparity is the corresponding one.
      corresponding: Cosine of corresponding disparities' embeddings.
      other: Cosine of all others.
      confined: Region name -> PatchNCE of the first three stages with centres confined to it; the fourth map has too
        few cells in a part of the face.
    """

    nce: Float[np.ndarray, "n 4"]
    top1: Float[np.ndarray, "n 4"]
    corresponding: Float[np.ndarray, "n 4"]
    other: Float[np.ndarray, "n 4"]
    confined: Mapping[str, Float[np.ndarray, "n 3"]]


def metric_losses(scores: MetricScores) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns one loss a comparison for each way of looking: all stages, some stages, or a part of the face."""
    views = {
        "face": scores.nce.sum(axis=1),
        "stages 2+3": scores.nce[:, 1:3].sum(axis=1),
        "stage 3": scores.nce[:, 2],
    }
    return views | {name: nce.sum(axis=1) for name, nce in scores.confined.items()}


def evaluation_metric(metric: FrozenMetric) -> FrozenMetric:
    """Returns the metric under the one protocol all are compared by, whatever conventions it was trained with."""
    settings = dataclasses.replace(
        metric.settings, border="inside", frozen_statistics="running", mask_same_centre=False, weighting="none"
    )
    return dataclasses.replace(metric, settings=settings)


def evaluation_locations(settings: MetricSettings, draws: int, *, region: str = "face") -> StackedLocations:
    """Returns fixed centres per stage, stacked over draws on a leading axis; three stages for a part of the face."""
    stages = 4 if region == "face" else CONFINED_STAGES
    sizes = map_sizes(settings.image_size)[:stages]
    drawn = [_draw_locations(draw, sizes, settings.centre_counts[:stages], REGIONS[region]) for draw in range(draws)]
    return tuple(jnp.stack(stage) for stage in zip(*drawn, strict=True))


@functools.partial(jax.jit, static_argnames=("sizes", "counts", "box"))
def _draw_locations(draw: ArrayLike, sizes: tuple[int, ...], counts: tuple[int, ...], box: Box | None) -> Locations:
    key = jax.random.fold_in(jax.random.key(0), draw)
    return sample_locations(key, sizes, counts, border="inside", within=box)


def chance_level(settings: MetricSettings) -> float:
    """Returns the total NCE of embeddings that say nothing: the sum over stages of ln(pairs)."""
    cells = [location_region(size, border="inside")[1] ** 2 for size in map_sizes(settings.image_size)]
    pairs = [
        len(NEIGHBOUR_OFFSETS) * min(count, most) for count, most in zip(settings.centre_counts, cells, strict=True)
    ]
    return float(np.sum(np.log(pairs)))


def score_comparisons(
    metric: FrozenMetric,
    frames: Frames,
    comparisons: Sequence[ComparisonRecord],
    *,
    draws: int = DRAWS,
    regions: Sequence[str] = tuple(REGIONS),
    advance: Callable[[int], object] = lambda images: None,
) -> MetricScores:
    """Returns the scores of every comparison.

    Args:
      metric: Metric under test; its conventions are replaced by those of `evaluation_metric`.
      frames: Where images come from.
      comparisons: Frame pairs; the query is the first of each.
      draws: Draws of locations to average.
      regions: Names in `REGIONS`, beginning with "face".
      advance: Told how many images were done, for a progress bar.
    """
    metric = evaluation_metric(metric)
    locations = [stage for name in regions for stage in evaluation_locations(metric.settings, draws, region=name)]
    nce = np.zeros((len(comparisons), len(locations)))
    retrieval = np.zeros((len(comparisons), 4, 3))
    for positions, query, key in _paired_embeddings(metric, frames, comparisons, tuple(locations), advance):
        block = _compare(query, key, temperature=metric.settings.temperature)
        nce[positions], retrieval[positions] = (np.asarray(values)[: len(positions)] for values in block)
    first_stages = range(4, len(locations), CONFINED_STAGES)
    confined = {
        name: nce[:, first : first + CONFINED_STAGES] for name, first in zip(regions[1:], first_stages, strict=True)
    }
    top1, corresponding, other = np.moveaxis(retrieval, -1, 0)
    return MetricScores(nce[:, :4], top1, corresponding, other, confined)


def count_images(comparisons: Sequence[ComparisonRecord]) -> int:
    """Returns how many distinct images the comparisons touch."""
    return len(_images_in_order(comparisons))


def _images_in_order(comparisons: Sequence[ComparisonRecord]) -> list[FrameName]:
    return list(dict.fromkeys(name for record in comparisons for name in _frame_names(record)))


def _frame_names(record: ComparisonRecord) -> tuple[FrameName, FrameName]:
    return (record.query_clip, record.query_frame), (record.key_clip, record.key_frame)


def _paired_embeddings(
    metric: FrozenMetric,
    frames: Frames,
    comparisons: Sequence[ComparisonRecord],
    locations: StackedLocations,
    advance: Callable[[int], object],
) -> Iterator[tuple[list[int], Embeddings, Embeddings]]:
    """Yields positions of comparisons with the embeddings of their queries and keys, padded to whole batches.

    Images go through the network in order of first use, in whole batches, and are forgotten after their last one.
    """
    images = _images_in_order(comparisons)
    order = {name: position for position, name in enumerate(images)}
    complete_at = [max(order[name] for name in _frame_names(record)) for record in comparisons]
    uses = collections.Counter(name for record in comparisons for name in _frame_names(record))
    embeddings: dict[FrameName, Embeddings] = {}
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        stages = [np.asarray(s) for s in _embed(metric, _pad([frames.image(*name) for name in batch]), locations)]
        embeddings |= {name: tuple(stage[i] for stage in stages) for i, name in enumerate(batch)}
        advance(len(batch))
        ready = [i for i, last in enumerate(complete_at) if first <= last < first + BATCH]
        for start in range(0, len(ready), BATCH):
            positions = ready[start : start + BATCH]
            names = [_frame_names(comparisons[i]) for i in positions]
            query, key = (
                tuple(_pad(stage) for stage in zip(*(embeddings[pair[side]] for pair in names), strict=True))
                for side in (0, 1)
            )
            yield positions, query, key
            for name in (name for pair in names for name in pair):
                uses[name] -= 1
                if not uses[name]:
                    del embeddings[name]


def _pad(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks arrays, repeating the last up to a whole batch, so that compiled shapes stay the same."""
    return np.stack([*arrays, *[arrays[-1]] * (BATCH - len(arrays))])


@jax.jit
def _embed(
    metric: FrozenMetric, images: UInt8[Array, "b h w 3"], locations: StackedLocations
) -> tuple[Float[Array, "b draws _ _"], ...]:
    maps = metric.features(prepare_images(images, metric.settings))

    def embed_draw(centres: Locations) -> tuple[Float[Array, "b _ _"], ...]:
        levels = [*range(4), *([*range(CONFINED_STAGES)] * len(centres))][: len(centres)]
        return tuple(
            metric.embed(level, neighbour_disparities(maps[level], chosen))
            for level, chosen in zip(levels, centres, strict=True)
        )

    return tuple(jnp.moveaxis(stage, 0, 1) for stage in jax.lax.map(embed_draw, locations))


@functools.partial(jax.jit, static_argnames="temperature")
def _compare(
    query: tuple[Float[Array, "b draws _ _"], ...], key: tuple[Float[Array, "b draws _ _"], ...], *, temperature: float
) -> tuple[Float[Array, "b stages"], Float[Array, "b 4 3"]]:
    """Returns NCE for all stages of all regions, and retrieval for the four of the whole face."""

    def compare_image(
        pair: tuple[tuple[Array, ...], tuple[Array, ...]],
    ) -> tuple[Float[Array, " stages"], Float[Array, "4 3"]]:
        stages = list(zip(*pair, strict=True))
        nce = [jnp.mean(patch_nce(*stage, temperature=temperature)) for stage in stages]
        return jnp.stack(nce), jnp.stack([_retrieval(*stage) for stage in stages[:4]])

    # One image at a time: its matrices of cosines stay in the cache.
    return jax.lax.map(compare_image, (query, key))


def _retrieval(query: Float[Array, "draws p e"], key: Float[Array, "draws p e"]) -> Float[Array, "3"]:
    """Share of nearest keys that correspond, cosine of corresponding and of other embeddings, as in training."""
    cosines = jnp.einsum("dpe,dqe->dpq", query, key, precision=jax.lax.Precision.HIGHEST)
    corresponding = jnp.diagonal(cosines, axis1=1, axis2=2)
    pairs = cosines.shape[-1]
    hits = jnp.argmax(cosines, axis=-1) == jnp.arange(pairs)[None]
    other = (jnp.sum(cosines, axis=(1, 2)) - jnp.sum(corresponding, axis=1)) / (pairs * (pairs - 1))
    return jnp.stack([jnp.mean(hits.astype(jnp.float32)), jnp.mean(corresponding), jnp.mean(other)])


# Rows that a learned metric has to beat: the same network untrained, and plain differences of pixels.

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
