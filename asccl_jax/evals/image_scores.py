"""How near pictures are to the truth: PSNR, SSIM and mean absolute difference, of all of a picture or a part of it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from asccl_jax.errors import InputError

__all__ = ["mean_difference", "psnr", "region_around", "ssim", "ssim_map"]

Image = UInt8[np.ndarray, "h w 3"]
Region = Bool[np.ndarray, "h w"]

_PEAK = 255.0
_SIGMA, _RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03


def psnr(image: Image, truth: Image, region: Region | None = None) -> float:
    """Returns the peak signal-to-noise ratio in dB; infinite for equal pictures.

    >>> round(psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)), 6)
    0.0

    Args:
      image: What is judged.
      truth: What it should be.
      region: Pixels that count; all if None.

    Raises:
      InputError: No pixel counts.
    """
    squares = (image.astype(np.float64) - truth.astype(np.float64)) ** 2
    error = float(_counted(squares, region).mean())
    return math.inf if error == 0 else 10 * math.log10(_PEAK**2 / error)


def mean_difference(image: Image, truth: Image, region: Region | None = None) -> float:
    """Returns the mean absolute difference in levels of 0..255; arguments and errors as `psnr`."""
    differences = np.abs(image.astype(np.float64) - truth.astype(np.float64))
    return float(_counted(differences, region).mean())


def ssim(image: Image, truth: Image, region: Region | None = None) -> float:
    """Returns the structural similarity, 1 for equal pictures: the mean of `ssim_map` over its pixels and channels.

    Args:
      image: What is judged.
      truth: What it should be.
      region: Places whose windows count, by their middle; all if None.

    Raises:
      InputError: A picture smaller than a window, or no window counts.
    """
    inner = None if region is None else region[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    return float(_counted(ssim_map(image, truth), inner).mean())


def ssim_map(image: Image, truth: Image) -> Float[np.ndarray, "y x 3"]:
    """Returns the structural similarity of each window of 11 x 11 pixels that lies inside the picture.

    Of Wang et al. (2004): Gaussian weights of deviation 1.5, K1 = 0.01, K2 = 0.03, population variances, each colour
    by itself. Entry (0, 0) belongs to pixel (5, 5).

    Raises:
      InputError: A picture smaller than a window.
    """
    if min(image.shape[:2]) < 2 * _RADIUS + 1:
        raise InputError(f"SSIM of a picture of {image.shape[1]} x {image.shape[0]} pixels: expected 11 or more")
    first, second = image.astype(np.float64), truth.astype(np.float64)
    first_mean, second_mean = _windows(first), _windows(second)
    first_variance = _windows(first * first) - first_mean**2
    second_variance = _windows(second * second) - second_mean**2
    covariance = _windows(first * second) - first_mean * second_mean
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    similar = (2 * first_mean * second_mean + c1) * (2 * covariance + c2)
    return similar / ((first_mean**2 + second_mean**2 + c1) * (first_variance + second_variance + c2))


def region_around(
    centre: Float[np.ndarray, "2"], side: float, shape: tuple[int, int], inside: Region | None = None
) -> Region:
    """Returns the pixels of a square, those of `inside` only if it is given.

    >>> region_around(np.array([1.0, 2.0]), 3.0, (4, 4)).astype(int).tolist()
    [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]

    Args:
      centre: Its middle (x, y) in pixels.
      side: Its side in pixels.
      shape: Height and width of the picture.
      inside: Pixels that may belong to it.
    """
    rows, columns = np.indices(shape)
    square = (np.abs(columns - centre[0]) <= side / 2) & (np.abs(rows - centre[1]) <= side / 2)
    return square if inside is None else square & inside


def _windows(values: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "y x 3"]:
    means = ndimage.gaussian_filter(values, (_SIGMA, _SIGMA, 0), radius=(_RADIUS, _RADIUS, 0))
    return means[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _counted(values: np.ndarray, region: Region | None) -> np.ndarray:
    chosen = values if region is None else values[region]
    if not chosen.size:
        raise InputError("a region of no pixels: nothing to compare there")
    return chosen
