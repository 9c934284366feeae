"""How far generated images are from real ones in the maps of a network: a discriminator's, or a frozen one's."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from asccl_jax.losses.adversarial import Judgements

__all__ = ["STAGE_WEIGHTS", "VGG_WEIGHTS", "feature_matching", "perceptual_distance", "relative_distance"]

VGG_WEIGHTS: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of VGG-19's maps after relu1_1, 2_1, 3_1, 4_1 and 5_1, as published."""

STAGE_WEIGHTS: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of the four stages of the metric's trunk: those of VGG-19's last four maps."""


_DARKEST = 1e-6
"""Keeps the division of an image's maps by their size finite where they are zero throughout."""


def feature_matching(fake: Judgements, real: Judgements) -> Float[Array, ""]:
    """Returns how far a discriminator's inner maps of generated images are from those of the real ones.

    `mean over scales of the sum over all layers but the last of mean|f - r| * 4 / layers`, where `layers` counts those
    but the last: with the published four that factor is 1. No gradient reaches the real side. Source: pix2pixHD.

    >>> ones, zeros, scores = jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 1, 1, 1))
    >>> float(feature_matching([[ones, ones, scores]], [[zeros, ones, scores]]))
    2.0
    """
    distances = [
        4.0 / (len(fake_layers) - 1) * _mean_distance(found, expected)
        for fake_layers, real_layers in zip(fake, real, strict=True)
        for found, expected in zip(fake_layers[:-1], real_layers[:-1], strict=True)
    ]
    return jnp.sum(jnp.stack(distances)) / len(fake)


def perceptual_distance(
    fake: Sequence[Float[Array, "n _ _ _"]], real: Sequence[Float[Array, "n _ _ _"]], weights: Sequence[float]
) -> Float[Array, ""]:
    """Returns the weighted sum over maps of `mean|f - r|`; no gradient reaches the real side.

    >>> maps = [jnp.ones((1, 2, 2, 1)), jnp.full((1, 1, 1, 1), 3.0)]
    >>> float(perceptual_distance(maps, [jnp.zeros_like(x) for x in maps], (0.5, 1.0)))
    3.5
    """
    pairs = zip(fake, real, weights, strict=True)
    return jnp.sum(jnp.stack([weight * _mean_distance(found, expected) for found, expected, weight in pairs]))


def relative_distance(
    fake: Sequence[Float[Array, "n _ _ _"]], real: Sequence[Float[Array, "n _ _ _"]], weights: Sequence[float]
) -> Float[Array, ""]:
    """Returns `perceptual_distance` with each image's map in units of its mean magnitude on the real image.

    Maps of a network that nobody has calibrated differ in size by orders of magnitude between stages and between
    checkpoints; as shares of the real maps they all weigh what their weights say.

    >>> maps = [jnp.full((1, 1, 1, 1), 30.0), jnp.full((1, 1, 1, 1), 0.1)]
    >>> round(float(relative_distance([1.5 * x for x in maps], maps, (1.0, 1.0))), 4)
    1.0
    """
    parts = []
    for found, expected, weight in zip(fake, real, weights, strict=True):
        # Cuts the target's gradient, here and in its size: only what is generated is pulled. Each image by its own
        # size, so that images do not influence each other.
        expected = lax.stop_gradient(expected)
        distances, sizes = (jnp.mean(jnp.abs(x), axis=(1, 2, 3)) for x in (found - expected, expected))
        parts.append(weight * jnp.mean(distances / (sizes + _DARKEST)))
    return jnp.sum(jnp.stack(parts))


def _mean_distance(found: Float[Array, "*shape"], expected: Float[Array, "*shape"]) -> Float[Array, ""]:
    # Cuts the target's gradient: only what is generated is pulled.
    return jnp.mean(jnp.abs(found - lax.stop_gradient(expected)))
