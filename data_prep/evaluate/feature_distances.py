"""Distances of pooled features: Frechet distance, cosine similarity, their tables of pools."""

from __future__ import annotations

import dataclasses
import functools
import random
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
from jaxtyping import Float

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError, writing
from asccl_jax.work import atomic_file
from data_prep.evaluate.video_metrics import PoolScore

__all__ = [
    "Moments",
    "PooledClip",
    "chosen_images",
    "cross_cosine",
    "expression_csim",
    "expression_pools",
    "frechet_distance",
    "frechet_pools",
    "paired_cosine",
]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of features; sets that were described apart can be merged as if they had been one.

    Attributes:
      mean: Of each feature.
      covariance: Unbiased (divisor n - 1); zeros for fewer than two items.
      count: Items described, n; None in files of others, which do not tell.
    """

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    count: int | None

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Moments:
        """Returns the moments of some features, one item a row; sums are float64 whatever the features are."""
        count, size = features.shape
        if not count:
            return cls(np.zeros(size), np.zeros((size, size)), 0)
        values = features.astype(np.float64)
        mean = values.mean(axis=0)
        centred = values - mean
        return cls(mean, centred.T @ centred / max(count - 1, 1), count)

    @property
    def singular(self) -> bool:
        """Whether there are too few items for a covariance of full rank: n <= d.

        A Frechet distance is defined for such too, but is larger than that of the populations, the more so the fewer
        items there are; it compares with others of the same n only. Report n beside it.
        """
        return self.count is not None and self.count <= len(self.mean)

    def merge(self, other: Moments) -> Moments:
        """Returns the moments of both sets together (Chan, Golub and LeVeque 1979); neither's items are needed.

        Raises:
          InputError: One of the two does not tell how many items it describes, or their features differ in number.
        """
        _check_sizes(self, other)
        if self.count is None or other.count is None:
            raise InputError("moments without n cannot be merged: make them anew from their features")
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        apart = other.mean - self.mean
        scatter = (self.count - 1) * self.covariance + (other.count - 1) * other.covariance
        scatter += np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(self.mean + apart * (other.count / count), scatter / (count - 1), count)

    def save(self, path: Path) -> None:
        """Writes an `.npz` of `mu` and `sigma`, as other programmes that measure Frechet distances read it, and `n`.

        Raises:
          WriteError: The file cannot be written.
        """
        arrays = {"mu": self.mean, "sigma": self.covariance}
        if self.count is not None:
            arrays["n"] = np.array(self.count, np.int64)
        with writing(path), atomic_file(path) as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Reads an `.npz` that holds `mu`, `sigma` and perhaps `n`; nothing in it is executed.

        Raises:
          InputError: No such file, another format, a key missing, or shapes and values that are no moments.
        """
        arrays = _arrays(path)
        missing = [name for name in ("mu", "sigma") if name not in arrays]
        if missing:
            raise InputError(f"{path}: no {', '.join(missing)}; expected keys mu, sigma and perhaps n")
        size = arrays["mu"].size
        if arrays["mu"].shape != (size,) or arrays["sigma"].shape != (size, size) or not size:
            raise InputError(
                f"{path}: mu of shape {arrays['mu'].shape}, sigma of {arrays['sigma'].shape}: expected (d,) and (d, d)"
            )
        if any(arrays[name].dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all() for name in arrays):
            raise InputError(f"{path}: holds values that are no finite numbers; make it anew")
        count = int(arrays["n"].item()) if arrays.get("n", np.zeros(0)).size == 1 else None
        return cls(arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64), count)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # numpy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as file, zipfile.ZipFile(file):
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            return {name: archive[name] for name in ("mu", "sigma", "n") if name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable .npz of moments ({error}); expected keys mu, sigma") from error


def frechet_distance(first: Moments, second: Moments) -> float:
    """Returns the squared Frechet (2-Wasserstein) distance between two normal distributions.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2. The last trace is the sum of the singular values of
    S1^1/2 S2^1/2, which is how it is computed: with symmetric roots only, no complex numbers arise and no multiple of
    the identity needs to be added where a covariance is singular (`Moments.singular`).

    >>> unit = Moments(np.zeros(2), np.eye(2), 10)
    >>> frechet_distance(unit, dataclasses.replace(unit, mean=np.array([3.0, 4.0])))
    25.0

    Args:
      first: One distribution.
      second: The other; the order does not matter.

    Raises:
      InputError: Features differ in number, or one set has fewer than two items.
    """
    _check_sizes(first, second)
    for moments in (first, second):
        if moments.count is not None and moments.count < 2:
            raise InputError(f"a Frechet distance of {moments.count} items: expected two or more on either side")
    apart = first.mean - second.mean
    shared = scipy.linalg.svdvals(_root(first.covariance) @ _root(second.covariance)).sum()
    distance = apart @ apart + np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared
    return max(0.0, float(distance))  # a rounding error below zero, of equal distributions


def _root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Symmetric square root; eigenvalues that are rounding errors of zero count as zero."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    floor = len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    return (vectors * np.sqrt(np.where(values > floor, values, 0.0))) @ vectors.T


def _check_sizes(first: Moments, second: Moments) -> None:
    if len(first.mean) != len(second.mean):
        raise InputError(
            f"moments of {len(first.mean)} and {len(second.mean)} features: expected both from the same network"
        )


# Cosines between features of faces: of expressions, all with all as published, and of identities, frame by frame.

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


# Figures of pools of clips: Frechet distances by emotion, and expression similarities by emotion and speaker.


@dataclasses.dataclass(frozen=True, eq=False)
class PooledClip:
    """A clip whose features go into pools.

    Attributes:
      clip: Its id; clips are pooled in this order.
      speaker: Whose face.
      emotion: Shown or asked for.
      frames: Number of its features.
      features: Reads them; called anew each time, so that memory holds one clip at a time.
    """

    clip: str
    speaker: str
    emotion: str
    frames: int
    features: Callable[[], Float[np.ndarray, "n d"]]


def frechet_pools(name: str, real: Sequence[PooledClip], fake: Sequence[PooledClip]) -> list[PoolScore]:
    """Returns the Frechet distance of each emotion that both sides have, pooled over speakers.

    Frames whose features are not finite, as those without a face, do not count. Only real clips of the manipulated
    speakers do, as in the published protocol.

    Args:
      name: The metric's name.
      real: Real clips.
      fake: Manipulated clips.
    """
    speakers = {clip.speaker for clip in fake}
    scores = []
    for emotion in EMOTIONS:
        sides = [
            _moments([clip for clip in side if clip.emotion == emotion and clip.speaker in speakers])
            for side in (real, fake)
        ]
        counts = [moments.count or 0 for moments in sides]
        if min(counts) >= 2:
            scores.append(PoolScore(name, emotion, "", frechet_distance(*sides), *counts))
    return scores


def expression_pools(name: str, real: Sequence[PooledClip], fake: Sequence[PooledClip]) -> list[PoolScore]:
    """Returns the expression similarity of each emotion and speaker that both sides have.

    As published: of each emotion one stream of random numbers runs over the speakers, in the order of their names.

    Args:
      name: The metric's name.
      real: Real clips.
      fake: Manipulated clips.
    """
    scores = []
    for emotion in EMOTIONS:
        sides = [[clip for clip in side if clip.emotion == emotion and clip.frames] for side in (real, fake)]
        speakers = sorted({clip.speaker for clip in sides[0]} & {clip.speaker for clip in sides[1]})
        own = [{one: [clip for clip in side if clip.speaker == one] for one in speakers} for side in sides]
        counts = [{one: sum(clip.frames for clip in clips) for one, clips in side.items()} for side in own]
        for one, chosen in chosen_images(*counts).items():
            features = [_rows(side[one], rows) for side, rows in zip(own, chosen, strict=True)]
            value = cross_cosine(*features)
            scores.append(PoolScore(name, emotion, one, value, *(len(rows) for rows in chosen)))
    return scores


def _moments(clips: Sequence[PooledClip]) -> Moments:
    each = (Moments.of(_finite(clip.features())) for clip in sorted(clips, key=lambda clip: clip.clip))
    nothing = Moments.of(np.zeros((0, 1)))
    return functools.reduce(lambda sums, own: sums.merge(own) if sums.count else own, each, nothing)


def _finite(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "m d"]:
    return features[np.isfinite(features).all(axis=1)]


def _rows(clips: Sequence[PooledClip], rows: Sequence[int]) -> Float[np.ndarray, "n d"]:
    """Features of some rows of the clips laid end to end, in the order of the rows."""
    wanted = np.sort(np.array(rows, np.int64))
    found, first = [], 0
    for clip in sorted(clips, key=lambda clip: clip.clip):
        own = wanted[(wanted >= first) & (wanted < first + clip.frames)] - first
        if len(own):
            found.append(clip.features()[own])
        first += clip.frames
    return np.concatenate(found)
