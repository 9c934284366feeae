"""A face laid into the picture it was cut from: by pyramids, so that no seam shows, or just copied."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Real

from asccl_jax.image.warping import resize_lanczos, resize_nearest

__all__ = [
    "Eroded",
    "blend_pyramids",
    "copy_paste",
    "doubled",
    "erosion_kernel",
    "gaussian_pyramid",
    "halved",
    "inner_mask",
    "laplacian_pyramid",
    "rebuilt",
    "soft_erosion",
]

# Gaussian and Laplacian pyramids, as OpenCV's `pyrDown` and `pyrUp` make them.


def gaussian_pyramid(image: Float[np.ndarray, "h w c"], levels: int) -> list[Float[np.ndarray, "_ _ c"]]:
    """Returns a picture and `levels` ever smaller ones, finest first."""
    pyramid = [image]
    for _ in range(levels):
        pyramid.append(halved(pyramid[-1]))
    return pyramid


def laplacian_pyramid(image: Float[np.ndarray, "h w c"], levels: int) -> list[Float[np.ndarray, "_ _ c"]]:
    """Returns the smallest picture and what each finer level adds to it, coarsest first; `levels` + 1 in all."""
    pyramid = gaussian_pyramid(image, levels)[::-1]
    details = [fine - doubled(coarse, fine.shape[:2]) for coarse, fine in itertools.pairwise(pyramid)]
    return [pyramid[0], *details]


def rebuilt(pyramid: Sequence[Float[np.ndarray, "_ _ c"]]) -> Float[np.ndarray, "h w c"]:
    """Returns the picture of a Laplacian pyramid, coarsest level first."""
    image = pyramid[0]
    for detail in pyramid[1:]:
        image = doubled(image, detail.shape[:2]) + detail
    return image


def halved(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "_ _ c"]:
    """Returns a picture smoothed (1 4 6 4 1) and at half the size, rounded up; mirrored about its outermost pixels."""
    return _on_both_axes(image, _halve, _halve)


def doubled(image: Float[np.ndarray, "h w c"], shape: tuple[int, int]) -> Float[np.ndarray, "rows columns c"]:
    """Returns a picture smoothly enlarged to a shape whose halves, rounded up, are its own."""
    height, width = shape
    return _on_both_axes(image, lambda rows: _double(rows)[:height], lambda columns: _double(columns)[:width])


_Rows = Float[np.ndarray, "n m c"]


def _on_both_axes(
    image: Float[np.ndarray, "h w c"], on_rows: Callable[[_Rows], _Rows], on_columns: Callable[[_Rows], _Rows]
) -> Float[np.ndarray, "_ _ c"]:
    return on_columns(on_rows(image).transpose(1, 0, 2)).transpose(1, 0, 2)


def _halve(rows: Float[np.ndarray, "n m c"]) -> Float[np.ndarray, "_ m c"]:
    wide = np.pad(rows, ((2, 2), (0, 0), (0, 0)), mode="reflect")
    count = (len(rows) + 1) // 2
    far_left, left, middle, right, far_right = (wide[tap : tap + 2 * count - 1 : 2] for tap in range(5))
    return (far_left + far_right + 4 * (left + right) + 6 * middle) / 16


def _double(rows: Float[np.ndarray, "n m c"]) -> Float[np.ndarray, "_ m c"]:
    # Mirrored at the first row, repeated at the last: OpenCV mirrors the rows between which it has put zeros.
    wide = np.concatenate([rows[1:2] if len(rows) > 1 else rows, rows, rows[-1:]])
    result = np.empty((2 * len(rows), *rows.shape[1:]), rows.dtype)
    result[::2] = (wide[:-2] + 6 * rows + wide[2:]) / 8
    result[1::2] = (rows + wide[2:]) / 2
    return result


# Soft erosion: a mask drawn back from its edge, with a soft rim where it was.


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


_RIM = 33 / 256
"""Side of the surroundings that decide on a pixel of the mask, as a share of the picture's height."""

_INNER = 0.8
"""Share of mask in them from which it stays."""


def blend_pyramids(
    background: Float32[np.ndarray, "h w c"],
    face: Float32[np.ndarray, "fh fw c"],
    mask: Real[np.ndarray, "mh mw"],
    *,
    levels: int = 4,
    copied_levels: int = 0,
) -> Float32[np.ndarray, "h w c"]:
    """Returns a picture with a face in it: details join within pixels, light and colour over many.

    Each level of the Laplacian pyramids is mixed by the mask, which is drawn back from its edge and smoothed to that
    level (Burt and Adelson 1983). The result may leave the range of its inputs a little.

    Args:
      background: The picture.
      face: Brought to its size by Lanczos-4 if it has another.
      mask: 1 where the face is, 0 elsewhere; brought to its size by the nearest pixel.
      levels: Of the pyramids, besides the picture itself.
      copied_levels: So many of the coarsest are the background's: its light and colours stay.
    """
    face, mask = _fitted(background, face, mask)
    backgrounds, faces = laplacian_pyramid(background, levels), laplacian_pyramid(face, levels)
    masks = gaussian_pyramid(inner_mask(mask)[..., None], levels)[::-1]
    mixed = [
        _mixed(under, over, share) if level >= copied_levels else under
        for level, (under, over, share) in enumerate(zip(backgrounds, faces, masks, strict=True))
    ]
    return rebuilt(mixed)


def copy_paste(
    background: Float32[np.ndarray, "h w c"],
    face: Float32[np.ndarray, "fh fw c"],
    mask: Real[np.ndarray, "mh mw"],
) -> Float32[np.ndarray, "h w c"]:
    """Returns a picture with a face in it where the mask is 1; sizes are brought together as for `blend_pyramids`."""
    face, mask = _fitted(background, face, mask)
    return _mixed(background, face, mask[..., None])


def inner_mask(mask: Real[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Returns the part of a mask that is blended in, 0 or 1: away from its edge by a few hundredths of the height."""
    size = int(_RIM * mask.shape[0])
    return soft_erosion(mask, size=size + 1 - size % 2, threshold=_INNER).hard.astype(np.float32)


def _fitted(
    background: Float32[np.ndarray, "h w c"], face: Float32[np.ndarray, "fh fw c"], mask: Real[np.ndarray, "mh mw"]
) -> tuple[Float32[np.ndarray, "h w c"], Float32[np.ndarray, "h w"]]:
    """Face and mask at the background's size."""
    height, width = background.shape[:2]
    return resize_lanczos(face, (height, width)), resize_nearest(mask, (height, width)).astype(np.float32)


def _mixed(
    background: Float32[np.ndarray, "h w c"], face: Float32[np.ndarray, "h w c"], share: Float32[np.ndarray, "h w 1"]
) -> Float32[np.ndarray, "h w c"]:
    return face * share + background * (1 - share)
