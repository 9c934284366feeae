"""The Frechet distance between two sets of features, each described by the moments of a normal distribution."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import scipy.linalg
from jaxtyping import Float

from asccl_jax.data.atomic import atomic_file
from asccl_jax.errors import InputError, writing

__all__ = ["Moments", "frechet_distance"]


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
