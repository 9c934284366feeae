"""Cosines between features of faces: of expressions, all with all as published, and of identities, frame by frame."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from asccl_jax.errors import InputError

__all__ = ["chosen_images", "cross_cosine", "expression_csim", "paired_cosine"]

LIMIT = 100
"""Images of an actor that are compared, at most, on either side."""

SEED = 1


def chosen_images(
    real: Mapping[str, int], fake: Mapping[str, int], *, seed: int = SEED, limit: int = LIMIT
) -> dict[str, tuple[list[int], list[int]]]:
    """Returns which of each actor's sorted images the expression similarity compares, real and fake ones.

    As published: one stream of random numbers runs over the actors in the order given, for each first over real, then
    over fake images; no number is drawn for a set that is taken whole. Knowing the choice beforehand, features of the
    others need not be computed.

    Args:
      real: Number of images of each actor. Its order is that of the actors.
      fake: Likewise, of the same actors in any order.
      seed: Of the stream.
      limit: Most images of a set.

    Raises:
      InputError: An actor is on one side only, or has no image there.
    """
    _check_actors(real, fake)
    stream = random.Random(seed)

    def choose(count: int) -> list[int]:
        return stream.sample(range(count), limit) if count > limit else list(range(count))

    return {actor: (choose(real[actor]), choose(fake[actor])) for actor in real}


def expression_csim(
    real: Mapping[str, Float[np.ndarray, "_ d"]],
    fake: Mapping[str, Float[np.ndarray, "_ d"]],
    *,
    seed: int = SEED,
    limit: int = LIMIT,
) -> dict[str, float]:
    """Returns each actor's expression similarity, which the papers print as CSIM; theirs is the mean over actors.

    The mean cosine of every real with every fake feature, of at most `limit` images a side (`chosen_images`). It
    tells whether faces show the same expression on the whole; neither identity nor the moment plays a part.

    Args:
      real: Expression features of each actor's real images, sorted by the images' names.
      fake: Those of the generated images of the same actors.
      seed: As for `chosen_images`.
      limit: Likewise.

    Raises:
      InputError: As for `chosen_images`; or a feature is zero or not finite.
    """
    counts = [{actor: len(features) for actor, features in side.items()} for side in (real, fake)]
    chosen = chosen_images(*counts, seed=seed, limit=limit)
    return {actor: cross_cosine(real[actor][first], fake[actor][second]) for actor, (first, second) in chosen.items()}


def cross_cosine(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]) -> float:
    """Returns the mean cosine of every row of one with every row of the other.

    >>> cross_cosine(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]))
    0.5

    Raises:
      InputError: A side is empty, or a feature is zero or not finite.
    """
    if not len(first) or not len(second):
        raise InputError(f"cosines of {len(first)} with {len(second)} features: expected one or more on either side")
    # The mean of all products is the product of the means.
    return float(_directions(first).mean(axis=0) @ _directions(second).mean(axis=0))


def paired_cosine(source: Float[np.ndarray, "t d"], fake: Float[np.ndarray, "t d"]) -> Float[np.ndarray, " t"]:
    """Returns the cosine of each feature with its partner: identity similarity, of ArcFace features frame by frame.

    Not to be mistaken for the papers' CSIM, which is `expression_csim`.

    Args:
      source: Features of the frames that were edited.
      fake: Features of the frames made of them.

    Raises:
      InputError: A feature is zero or not finite.
    """
    return np.sum(_directions(source) * _directions(fake), axis=1)


def _directions(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    values = features.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    wrong = ~(np.isfinite(lengths) & (lengths > 0))
    if wrong.any():
        raise InputError(
            f"{int(wrong.sum())} of {len(values)} features are zero or not finite: they have no direction; check the"
            " network's weights"
        )
    return values / lengths


def _check_actors(real: Mapping[str, int], fake: Mapping[str, int]) -> None:
    if set(real) != set(fake):
        raise InputError(
            f"actors {_names(set(real) - set(fake))} have real images only, {_names(set(fake) - set(real))} generated"
            " ones only: expected the same on either side"
        )
    empty = [actor for actor in real if not real[actor] or not fake[actor]]
    if empty:
        raise InputError(f"no images of {_names(empty)} on one side: leave such actors out")


def _names(actors: set[str] | Sequence[str]) -> str:
    return ", ".join(sorted(actors)) or "(none)"
