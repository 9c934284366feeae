"""Soft erosion: a mask drawn back from its edge, with a soft rim where it was."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Real

__all__ = ["Eroded", "erosion_kernel", "soft_erosion"]


@dataclasses.dataclass(frozen=True)
class Eroded:
    """A mask after erosion.

    Attributes:
      hard: Where its surroundings are mask up to the threshold.
      soft: 1 there; elsewhere the share of the mask in the surroundings, of which the largest is scaled to 1.
    """

    hard: Bool[np.ndarray, "h w"]
    soft: Float32[np.ndarray, "h w"]


def soft_erosion(mask: Real[np.ndarray, "h w"], *, size: int, threshold: float, iterations: int = 1) -> Eroded:
    """Returns a mask drawn back from its edge; beyond the picture there is none.

    Args:
      mask: From 0 to 1.
      size: Side of the surroundings in pixels, odd.
      threshold: Share of mask in the surroundings, nearer pixels counting more, from which a pixel stays.
      iterations: Earlier ones, without a threshold, keep the smaller of a pixel and its surroundings.
    """
    kernel = erosion_kernel(size)
    share = mask.astype(np.float32)
    for _ in range(iterations - 1):
        share = np.minimum(share, _surroundings(share, kernel))
    share = _surroundings(share, kernel)
    hard = share >= threshold
    largest = np.max(share, where=~hard, initial=0)
    # Upstream: the published code divides by zero where the mask is empty.
    soft = np.where(hard, np.float32(1), share / (largest or np.float32(1)))
    return Eroded(hard=hard, soft=soft)


def erosion_kernel(size: int) -> Float32[np.ndarray, "size size"]:
    """Returns the weights of the surroundings: a cone that ends at the corners, sum 1."""
    offsets = np.arange(size) - size // 2
    distance = np.hypot(offsets[:, None], offsets[None, :])
    weights = (distance.max() - distance).astype(np.float32)
    return weights / weights.sum()


def _surroundings(share: Float32[np.ndarray, "h w"], kernel: Float32[np.ndarray, "k k"]) -> Float32[np.ndarray, "h w"]:
    """Weighted mean around each pixel, in float64 by Fourier transform: k is large, and nothing under 0 comes out."""
    (rows, columns), half = share.shape, len(kernel) // 2
    padded = (rows + 2 * half, columns + 2 * half)
    spectrum = np.fft.rfft2(share.astype(np.float64), padded) * np.fft.rfft2(kernel.astype(np.float64), padded)
    mean = np.fft.irfft2(spectrum, padded)[half : half + rows, half : half + columns]
    return np.maximum(mean, 0).astype(np.float32)
