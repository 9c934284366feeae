"""Coherent correlation: local disparities of two images should match where the regions correspond."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from asccl_jax.norms import safe_norm
from asccl_jax.sampling import NEIGHBOUR_OFFSETS
from asccl_jax.settings import MetricSettings
from asccl_jax.types import Locations

__all__ = [
    "CorrelationParts",
    "Embed",
    "LocationScores",
    "correlation_loss",
    "cosines_along_pairs",
    "disparity_weights",
    "location_scores",
    "neighbour_disparities",
    "patch_nce",
    "stage_loss",
]

Embed: TypeAlias = Callable[[int, Array], Array]
"""(stage 0..3, disparities "b p c") -> unit embeddings "b p e"."""

_NEIGHBOURS = len(NEIGHBOUR_OFFSETS)


@struct.dataclass
class LocationScores:
    """One stage's comparison, location by location; nothing is reduced over images.

    Attributes:
      nce: PatchNCE loss of each disparity.
      hit: Whether the corresponding disparity of the key is the nearest of all.
      corresponding: Cosine of a disparity's embedding and that of the corresponding one.
      other: Mean cosine of a disparity's embedding and those of all other disparities of the key image.
      query_disparities: Raw disparities of the query, from which weights come.
      query: Embeddings of the query's disparities.
      key: Embeddings of the key's disparities; no gradient passes.
    """

    nce: Float[Array, "b p"]
    hit: Bool[Array, "b p"]
    corresponding: Float[Array, "b p"]
    other: Float[Array, "b p"]
    query_disparities: Float[Array, "b p c"]
    query: Float[Array, "b p e"]
    key: Float[Array, "b p e"]


@no_type_check  # a tree map puts axes, shapes and None where arrays were
@struct.dataclass
class CorrelationParts:
    """What the loss is made of, one number a stage.

    Attributes:
      stage_losses: Weighted losses, before the sum over stages and `loss_scale`.
      stage_nce: Unweighted mean PatchNCE; ln(pairs) is chance.
      mean_weight: Mean disparity weight, 1..2.
      corresponding_similarity: Mean cosine of corresponding embeddings, along the axis of the settings.
      other_similarity: The same for embeddings that do not correspond: the mean over all of them for "channels", and
        the mean over all permutations, or over the given one, for "pairs".
      top1: Share of disparities whose nearest key disparity is the corresponding one.
    """

    stage_losses: Float[Array | np.ndarray, "4"]
    stage_nce: Float[Array | np.ndarray, "4"]
    mean_weight: Float[Array | np.ndarray, "4"]
    corresponding_similarity: Float[Array | np.ndarray, "4"]
    other_similarity: Float[Array | np.ndarray, "4"]
    top1: Float[Array | np.ndarray, "4"]


def neighbour_disparities(features: Float[Array, "b h w c"], centres: Int[Array, "n 2"]) -> Float[Array, "b p c"]:
    """Returns the feature at each centre minus the feature at each of its eight neighbours.

    Pair `8 s + o` belongs to centre s and neighbour o of `NEIGHBOUR_OFFSETS`. Indices wrap round the map, which
    only centres drawn with `border="wrap"` make happen.

    >>> features = jnp.arange(9.0).reshape(1, 3, 3, 1)
    >>> neighbour_disparities(features, jnp.array([[1, 1]]))[0, :, 0].tolist()
    [4.0, 3.0, 2.0, 1.0, -1.0, -2.0, -3.0, -4.0]
    """
    size = jnp.asarray(features.shape[1:3], centres.dtype)
    offsets = jnp.asarray(NEIGHBOUR_OFFSETS, centres.dtype)
    neighbours = (centres[:, None] + offsets[None]) % size[None, None]
    at_centres = features[:, centres[:, 0], centres[:, 1]]
    at_neighbours = features[:, neighbours[..., 0], neighbours[..., 1]]
    disparities = at_centres[:, :, None] - at_neighbours
    return disparities.reshape(features.shape[0], -1, features.shape[-1])


def patch_nce(
    query: Float[Array, "b p e"],
    key: Float[Array, "b p e"],
    *,
    temperature: float,
    mask_same_centre: bool = False,
) -> Float[Array, "b p"]:
    """Returns the contrastive loss of each query against all keys of its image.

    `CE_p = ln sum_j exp(q_p.k_j / tau) - q_p.k_p / tau`, with the corresponding key as the positive and the other
    keys of the same image as negatives. No gradient reaches the key. Source: ASCCL, after CUT's PatchNCE.

    >>> same = jnp.ones((1, 4, 1))
    >>> bool(jnp.allclose(patch_nce(same, same, temperature=0.07), jnp.log(4.0)))
    True

    Args:
      query: Unit embeddings.
      key: Unit embeddings of the corresponding pairs.
      temperature: Divides the cosines.
      mask_same_centre: Leaves the seven other neighbours of the same centre out of the negatives.
    """
    return _nce_of_cosines(_cosine_matrix(query, key), temperature=temperature, mask_same_centre=mask_same_centre)


def disparity_weights(
    disparities: Float[Array, "b p c"],
    *,
    reduction: str = "channel",
    threshold: float = 0.8,
    scale: float = 2.0,
    power: int = 2,
) -> Float[Array, "b p *c"]:
    """Returns weights that favour regions of large disparity.

    `t = sigmoid(|d|)`, `w = scale * t^power` where `t > threshold`, else 1. With the defaults the weight jumps from 1
    to 1.28 at |d| = ln 4 and tends to 2. Upstream: spatial_coherent_learning/model_landmarks.py weighs channels; how
    the paper turns channels into one weight a location is not known, hence the choice.

    >>> disparity_weights(jnp.array([[[0.0, 100.0]]])).tolist()
    [[[1.0, 2.0]]]
    >>> disparity_weights(jnp.array([[[0.0, 100.0]]]), reduction="mean").tolist()
    [[1.5]]

    Args:
      disparities: Raw disparities of the query's features.
      reduction: "channel" keeps a weight per channel, "mean" averages those, "norm" weighs the root mean square of the
        disparity's channels.
      threshold: Value of the sigmoid above which a disparity counts as large.
      scale: Factor on large disparities, lambda in the paper.
      power: Exponent on large disparities, r in the paper.
    """
    if reduction == "norm":
        magnitude = safe_norm(disparities)[..., 0] / disparities.shape[-1] ** 0.5
    else:
        magnitude = jnp.abs(disparities)
    t = jax.nn.sigmoid(magnitude)
    weights = jnp.where(t > threshold, scale * t**power, jnp.ones_like(t))
    return jnp.mean(weights, axis=-1) if reduction == "mean" else weights


def stage_loss(
    nce: Float[Array, "b p"], query_disparities: Float[Array, "b p c"], settings: MetricSettings
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns one stage's weighted loss and its mean weight.

    "per_location" is `mean_{b,p}(w_bp CE_bp)`; "global" is `mean(CE) mean(w)`, which the released code computes because
    its cross entropy is a scalar before it is weighted; "none" is `mean(CE)`.
    """
    if settings.weight_gradient == "stopped":
        # Cuts the weights' gradient into the trunk: the loss must not fall by making disparities small.
        query_disparities = lax.stop_gradient(query_disparities)
    weights = disparity_weights(query_disparities, reduction=settings.weight_reduction)
    mean_weight = jnp.mean(weights)
    if settings.weighting == "per_location":
        return jnp.mean(weights * nce), mean_weight
    if settings.weighting == "global":
        return jnp.mean(nce) * mean_weight, mean_weight
    return jnp.mean(nce), mean_weight


def location_scores(
    query_features: Sequence[Float[Array, "b _ _ _"]],
    key_features: Sequence[Float[Array, "b _ _ _"]],
    embed: Embed,
    locations: Locations,
    settings: MetricSettings,
) -> tuple[LocationScores, ...]:
    """Returns, per stage, the comparison of two images at every location; evaluation reduces it as it likes.

    Args:
      query_features: Feature maps of the query, one a stage.
      key_features: Feature maps of the key; no gradient reaches them.
      embed: Heads of the metric.
      locations: Centres per stage.
      settings: Temperature and masking.
    """
    scores = []
    for level, (query_map, key_map, centres) in enumerate(zip(query_features, key_features, locations, strict=True)):
        query_disparities = neighbour_disparities(query_map, centres)
        # Cuts the key's whole branch: the key is the target, only the query is pulled.
        key_disparities = neighbour_disparities(lax.stop_gradient(key_map), centres)
        query = embed(level, query_disparities)
        key = lax.stop_gradient(embed(level, key_disparities))
        cosines = _cosine_matrix(query, key)
        corresponding = jnp.diagonal(cosines, axis1=1, axis2=2)
        pairs = cosines.shape[-1]
        scores.append(
            LocationScores(
                nce=_nce_of_cosines(
                    cosines, temperature=settings.temperature, mask_same_centre=settings.mask_same_centre
                ),
                hit=jnp.argmax(cosines, axis=-1) == jnp.arange(pairs)[None],
                corresponding=corresponding,
                other=(jnp.sum(cosines, axis=-1) - corresponding) / (pairs - 1),
                query_disparities=query_disparities,
                query=query,
                key=key,
            )
        )
    return tuple(scores)


def correlation_loss(
    query_features: Sequence[Float[Array, "b _ _ _"]],
    key_features: Sequence[Float[Array, "b _ _ _"]],
    embed: Embed,
    locations: Locations,
    settings: MetricSettings,
    *,
    permutations: Sequence[Int[Array, " _"]] | None = None,
) -> tuple[Float[Array, ""], CorrelationParts]:
    """Returns `loss_scale * sum over stages` of the weighted PatchNCE, and its parts.

    Args:
      query_features: Feature maps of the query (neutral, or generated), one a stage.
      key_features: Feature maps of the key (emotional, or real); no gradient reaches them.
      embed: Heads of the metric, shared by query and key.
      locations: Centres per stage, shared by query and key.
      settings: Every choice of the loss.
      permutations: Per stage, the order of pairs against which `similarity_axis="pairs"` reports the similarity of
        pairs that do not correspond. The loss does not depend on it.
    """
    stages = location_scores(query_features, key_features, embed, locations, settings)
    losses, weights, corresponding, other = [], [], [], []
    for level, scores in enumerate(stages):
        loss, mean_weight = stage_loss(scores.nce, scores.query_disparities, settings)
        losses.append(loss)
        weights.append(mean_weight)
        if settings.similarity_axis == "channels":
            corresponding.append(jnp.mean(scores.corresponding))
            other.append(jnp.mean(scores.other))
        else:
            permutation = None if permutations is None else permutations[level]
            same, different = cosines_along_pairs(scores.query, scores.key, permutation=permutation)
            corresponding.append(jnp.mean(same))
            other.append(jnp.mean(different))
    parts = CorrelationParts(
        stage_losses=jnp.stack(losses),
        stage_nce=jnp.stack([jnp.mean(scores.nce) for scores in stages]),
        mean_weight=jnp.stack(weights),
        corresponding_similarity=lax.stop_gradient(jnp.stack(corresponding)),
        other_similarity=lax.stop_gradient(jnp.stack(other)),
        top1=jnp.stack([jnp.mean(scores.hit.astype(scores.nce.dtype)) for scores in stages]),
    )
    return settings.loss_scale * jnp.sum(parts.stage_losses), parts


def cosines_along_pairs(
    query: Float[Array, "b p e"], key: Float[Array, "b p e"], *, permutation: Int[Array, " p"] | None = None
) -> tuple[Float[Array, "b e"], Float[Array, "b e"]]:
    """Returns cosines taken along the pair axis, of corresponding and of permuted pairs.

    Upstream: spatial_coherent_learning/model_landmarks.py logs these under "similarity"; they are correlations over
    locations, one per embedding channel. It permutes at random; without a permutation this returns the mean over all
    permutations, which is `sum(q) sum(k) / (p |q| |k|)`.
    """
    epsilon = 1e-8

    def unit(x: Array) -> Array:
        return x / jnp.maximum(safe_norm(x), epsilon)

    query, key = unit(query.swapaxes(1, 2)), unit(key.swapaxes(1, 2))
    same = jnp.sum(query * key, axis=-1)
    if permutation is None:
        return same, jnp.sum(query, axis=-1) * jnp.sum(key, axis=-1) / query.shape[-1]
    return same, jnp.sum(query * key[..., permutation], axis=-1)


def _cosine_matrix(query: Float[Array, "b p e"], key: Float[Array, "b p e"]) -> Float[Array, "b p p"]:
    # Full precision: at temperature 0.07 an error of 1e-3 in a cosine (TensorFloat-32) is 1.4 % of a probability.
    # The key is the target: no gradient reaches it.
    return jnp.einsum("bpe,bqe->bpq", query, lax.stop_gradient(key), precision=lax.Precision.HIGHEST)


def _nce_of_cosines(
    cosines: Float[Array, "b p p"], *, temperature: float, mask_same_centre: bool
) -> Float[Array, "b p"]:
    logits = cosines / temperature
    positive = jnp.diagonal(logits, axis1=1, axis2=2)
    if mask_same_centre:
        pair = jnp.arange(logits.shape[-1])
        same_centre = pair[:, None] // _NEIGHBOURS == pair[None] // _NEIGHBOURS
        masked = same_centre & (pair[:, None] != pair[None])
        logits = jnp.where(masked[None], -jnp.inf, logits)
    return jax.nn.logsumexp(logits, axis=-1) - positive
