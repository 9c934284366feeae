"""What a metric sees in single faces: its disparity weights all over, and which local change it takes for which."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from asccl_jax.evals.metric_scores import evaluation_locations, evaluation_metric
from asccl_jax.frozen_metric import FrozenMetric
from asccl_jax.losses.contrastive import disparity_weights, neighbour_disparities
from asccl_jax.models.correlation import prepare_images
from asccl_jax.sampling import NEIGHBOUR_OFFSETS, location_region, map_sizes

__all__ = ["Look", "Picks", "look_at_pairs"]

_NEIGHBOURS = len(NEIGHBOUR_OFFSETS)


@dataclasses.dataclass(frozen=True)
class Picks:
    """For some local changes of one face, the most similar ones a metric finds in another.

    A change leads from a centre to one of its eight neighbours. Points are (row, column) as fractions of the image.

    Attributes:
      centres: Where each change starts in both images.
      neighbours: Where it leads to.
      picked_centres: Where the most similar change of the other image starts.
      picked_neighbours: Where that one leads to.
    """

    centres: Float[np.ndarray, "n 2"]
    neighbours: Float[np.ndarray, "n 2"]
    picked_centres: Float[np.ndarray, "n 2"]
    picked_neighbours: Float[np.ndarray, "n 2"]

    @property
    def right_place(self) -> Bool[np.ndarray, " n"]:
        """Whether each pick starts at the right centre."""
        return np.all(self.centres == self.picked_centres, axis=1)

    @property
    def right(self) -> Bool[np.ndarray, " n"]:
        """Whether each pick is the corresponding change."""
        return self.right_place & np.all(self.neighbours == self.picked_neighbours, axis=1)


@dataclasses.dataclass(frozen=True)
class Look:
    """How a metric looks at some pairs of faces.

    Attributes:
      weights: Per stage and query, the adaptive weight of each cell, 1..2: the mean over its eight disparities. Cells
        at the border, which are never centres, are NaN.
      picks: Per pair, the nearest neighbours of some local changes.
    """

    weights: tuple[Float[np.ndarray, "b _ _"], ...]
    picks: tuple[Picks, ...]


def look_at_pairs(
    metric: FrozenMetric,
    queries: UInt8[np.ndarray, "b h w 3"],
    keys: UInt8[np.ndarray, "b h w 3"],
    *,
    stage: int,
    count: int,
) -> Look:
    """Returns the weights all over the queries, and what the metric takes some of their local changes for in the keys.

    Args:
      metric: The metric.
      queries: Faces whose changes are looked up.
      keys: Faces in which they are looked for, among all changes that one draw of locations compares.
      stage: Stage of the changes, 0..3.
      count: Changes to look up, each at another centre.
    """
    metric = evaluation_metric(metric)
    sizes = map_sizes(metric.settings.image_size)
    locations = evaluation_locations(metric.settings, 1)[stage][0]
    weights, query, key = _see(metric, queries, keys, locations, stage=stage)
    centres = np.asarray(locations)
    chosen = _spread_out(centres, count)
    # Another direction at each centre: a stride of three visits all eight.
    looked_up = _NEIGHBOURS * chosen + (3 * np.arange(len(chosen))) % _NEIGHBOURS
    nearest = np.einsum("bpe,bqe->bpq", np.asarray(query)[:, looked_up], np.asarray(key)).argmax(axis=2)
    picks = tuple(
        Picks(*_ends(centres, looked_up, sizes[stage]), *_ends(centres, picked, sizes[stage])) for picked in nearest
    )
    return Look(tuple(_framed(*level) for level in zip(weights, sizes, strict=True)), picks)


@functools.partial(jax.jit, static_argnames="stage")
def _see(
    metric: FrozenMetric,
    queries: UInt8[Array, "b h w 3"],
    keys: UInt8[Array, "b h w 3"],
    centres: Int[Array, "n 2"],
    *,
    stage: int,
) -> tuple[tuple[Float[Array, "b _ _"], ...], Float[Array, "b p e"], Float[Array, "b p e"]]:
    """Weights of all cells inside the border of the queries' maps, and one stage's embeddings of queries and keys."""
    images = prepare_images(jnp.concatenate([queries, keys]), metric.settings)
    maps = metric.features(images)
    weights = []
    for features in (both[: len(queries)] for both in maps):
        first, side = location_region(features.shape[1], border="inside")
        cells = first + jnp.stack(jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij"), axis=-1)
        disparities = neighbour_disparities(features, cells.reshape(-1, 2))
        by_pair = disparity_weights(disparities, reduction=metric.settings.weight_reduction)
        weights.append(by_pair.reshape(len(queries), side, side, _NEIGHBOURS).mean(axis=-1))
    query, key = jnp.split(metric.embed(stage, neighbour_disparities(maps[stage], centres)), 2)
    return tuple(weights), query, key


def _framed(weights: Float[Array, "b s s"], size: int) -> Float[np.ndarray, "b t t"]:
    """Adds the border of a map, whose cells are never centres."""
    first, side = location_region(size, border="inside")
    border = (first, size - side - first)
    return np.pad(np.asarray(weights), ((0, 0), border, border), constant_values=np.nan)


def _spread_out(centres: Int[np.ndarray, "n 2"], count: int) -> Int[np.ndarray, " k"]:
    """Positions of centres that lie far from each other: each next one is the farthest from those before."""
    chosen = [0]
    while len(chosen) < min(count, len(centres)):
        distances = np.linalg.norm(centres[:, None] - centres[None, chosen], axis=2).min(axis=1)
        chosen.append(int(distances.argmax()))
    return np.array(chosen)


def _ends(
    centres: Int[np.ndarray, "n 2"], pairs: Int[np.ndarray, " k"], size: int
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
    start = centres[pairs // _NEIGHBOURS]
    end = start + np.array(NEIGHBOUR_OFFSETS)[pairs % _NEIGHBOURS]
    return (start + 0.5) / size, (end + 0.5) / size
