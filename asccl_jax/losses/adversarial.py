"""Losses of networks that judge and networks that are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["GAN_MODES", "GanMode", "Judgements", "judged_fake", "judged_real", "least_squares", "passed_as_real"]

GanMode = Literal["ls", "hinge"]
"""How scores are held against what they should be."""

GAN_MODES: tuple[GanMode, ...] = ("ls", "hinge")

Judgements: TypeAlias = Sequence[Sequence[Float[Array, "n _ _ _"]]]
"""What a multi-scale discriminator returns: per scale the maps of its layers, scores last."""


def least_squares(scores: Float[Array, "..."], target: float) -> Float[Array, ""]:
    """Returns the mean squared distance of a discriminator's scores from what they should be (LSGAN).

    The discriminator's loss is that of real examples with target 1 plus that of generated ones with target 0; the
    generator's is that of its own with target 1.

    >>> float(least_squares(jnp.array([1.0, 0.0]), 1.0))
    0.5
    """
    return jnp.mean(jnp.square(scores - target))


def judged_real(maps: Judgements, *, mode: GanMode = "ls") -> Float[Array, ""]:
    """Returns the discriminator's loss on real images: the sum over scales of a mean over places.

    `mean((p - 1)^2)` ("ls") or `mean(max(0, 1 - p))` ("hinge").

    >>> scores = [[jnp.full((1, 1, 1, 1), 0.5)], [jnp.full((1, 1, 1, 1), 3.0)]]
    >>> float(judged_real(scores)), float(judged_real(scores, mode="hinge"))
    (4.25, 0.5)
    """
    return _over_scales(maps, lambda p: least_squares(p, 1.0) if mode == "ls" else jnp.mean(jax.nn.relu(1 - p)))


def judged_fake(maps: Judgements, *, mode: GanMode = "ls") -> Float[Array, ""]:
    """Returns the discriminator's loss on generated images: the sum over scales of a mean over places.

    `mean(p^2)` ("ls") or `mean(max(0, 1 + p))` ("hinge").

    >>> scores = [[jnp.full((1, 1, 1, 1), 0.5)], [jnp.full((1, 1, 1, 1), -3.0)]]
    >>> float(judged_fake(scores)), float(judged_fake(scores, mode="hinge"))
    (9.25, 1.5)
    """
    return _over_scales(maps, lambda p: least_squares(p, 0.0) if mode == "ls" else jnp.mean(jax.nn.relu(1 + p)))


def passed_as_real(maps: Judgements, *, mode: GanMode = "ls") -> Float[Array, ""]:
    """Returns the generator's loss on its own images: the sum over scales of a mean over places.

    `mean((p - 1)^2)` ("ls") or `-mean(p)` ("hinge").

    >>> scores = [[jnp.full((1, 1, 1, 1), 0.5)], [jnp.full((1, 1, 1, 1), 3.0)]]
    >>> float(passed_as_real(scores)), float(passed_as_real(scores, mode="hinge"))
    (4.25, -3.5)
    """
    return _over_scales(maps, lambda p: least_squares(p, 1.0) if mode == "ls" else -jnp.mean(p))


def _over_scales(maps: Judgements, of_scores: Callable[[Array], Array]) -> Float[Array, ""]:
    return jnp.sum(jnp.stack([of_scores(layers[-1]) for layers in maps]))
