"""Losses of the generators: adversarial, perceptual, of regions, of coefficient sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from asccl_jax.errors import InputError

__all__ = [
    "GAN_MODES",
    "LEAST_VARIANCE",
    "STAGE_WEIGHTS",
    "VGG_WEIGHTS",
    "GanMode",
    "Judgements",
    "absolute_error",
    "crop_regions",
    "feature_matching",
    "judged_fake",
    "judged_real",
    "least_squares",
    "mean_point",
    "mouth_correlation",
    "passed_as_real",
    "pearson",
    "perceptual_distance",
    "relative_distance",
]

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


# How far generated images are from real ones in the maps of a network: a discriminator's, or a frozen one's.

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


# Square pieces of images round given points, all of one size, moved inwards where they would leave the image.


def crop_regions(
    image: Float[Array, "n h w c"], centre: Int[Array, "n 2"], size: int
) -> Float[Array, "n {size} {size} c"]:
    """Returns the square of side `size` round a point of each image.

    Rows `y - size // 2` to `y + size // 2 - 1` and the like for columns, once x and y are clamped such that the square
    lies in the image. Gradients go back to the pixels that were cut out.

    >>> image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> crop_regions(image, jnp.array([[1, 2]]), 2)[0, :, :, 0].tolist()
    [[4.0, 5.0], [8.0, 9.0]]
    >>> crop_regions(image, jnp.array([[9, -5]]), 2)[0, :, :, 0].tolist()
    [[2.0, 3.0], [6.0, 7.0]]

    Args:
      image: Images.
      centre: A point (x, y) of each, in whole pixels.
      size: Side of the squares; even.

    Raises:
      InputError: An odd side, or one larger than the images.
    """
    _, height, width, channels = image.shape
    if size % 2 or not 0 < size <= min(height, width):
        raise InputError(f"regions of {size} pixels in images of {height} x {width}: expected an even side that fits")

    def crop(one: Array, point: Array) -> Array:
        column, row = point - size // 2
        # `dynamic_slice` clamps the corner to the image: the same squares as from clamped centres.
        return lax.dynamic_slice(one, (row, column, jnp.zeros_like(row)), (size, size, channels))

    # A negative start would count from the end.
    return jax.vmap(crop)(image, jnp.maximum(centre, size // 2))


def mean_point(image: Float[Array, "n h w c"]) -> Int[Array, "n 2"]:
    """Returns the middle (x, y) of what is drawn on black, in whole pixels; the image's own middle where nothing is.

    >>> mean_point(jnp.zeros((1, 4, 6, 1)).at[0, 1, 2:5].set(1.0)).tolist()
    [[3, 1]]
    """
    _, height, width, _ = image.shape
    light = jnp.sum(image, axis=-1)
    total = jnp.sum(light, axis=(1, 2))
    safe = jnp.where(total > 0, total, jnp.ones_like(total))
    x = jnp.sum(light * jnp.arange(width, dtype=light.dtype)[None, None], axis=(1, 2)) / safe
    y = jnp.sum(light * jnp.arange(height, dtype=light.dtype)[None, :, None], axis=(1, 2)) / safe
    middle = jnp.asarray([width // 2, height // 2], jnp.int32)
    found = jnp.round(jnp.stack([x, y], axis=-1)).astype(jnp.int32)
    return jnp.where((total > 0)[:, None], found, middle[None])


# What a manipulated window should keep and reach: the style asked for, a way back, and the motion of the mouth.
#
# All functions give one number a window; the loss is their mean over the batch.

LEAST_VARIANCE = 1e-12
"""Variance along time at or below which a track counts as constant: a deviation of a millionth (of a radian)."""


def absolute_error(found: Float[Array, "b *rest"], expected: Float[Array, "b *rest"]) -> Float[Array, " b"]:
    """Returns the mean absolute difference over all axes but the first.

    The style loss between two styles, and the cycle loss between a window and its reconstruction.

    >>> absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])).tolist()
    [1.0]
    """
    return jnp.mean(jnp.abs(found - expected), axis=tuple(range(1, found.ndim)))


def pearson(first: Float[Array, "b t"], second: Float[Array, "b t"]) -> Float[Array, " b"]:
    """Returns the correlation of two tracks along time, `mean(a' b') / sqrt(mean(a'^2) mean(b'^2))`, a' = a - mean(a).

    >>> up = jnp.array([[0.0, 1.0, 2.0]])
    >>> [round(float(pearson(up, other)[0]), 6) for other in (5 * up + 1, -up, 0 * up)]
    [1.0, -1.0, 0.0]

    Args:
      first: One track a window.
      second: Like `first`.
    """
    first, second = (track - jnp.mean(track, axis=1, keepdims=True) for track in (first, second))
    variances = jnp.mean(jnp.square(first), axis=1), jnp.mean(jnp.square(second), axis=1)
    # Upstream: manipulator/ divides without a guard, so one clip with a still jaw makes all of training NaN. A window
    # in which either track is constant has no correlation: it counts 0 and sends no gradient.
    moving = (variances[0] > LEAST_VARIANCE) & (variances[1] > LEAST_VARIANCE)
    scales = [lax.rsqrt(jnp.where(moving, variance, jnp.ones_like(variance))) for variance in variances]
    covariance = jnp.mean(first * second, axis=1)
    return jnp.where(moving, covariance * scales[0] * scales[1], jnp.zeros_like(covariance))


def mouth_correlation(
    source: Float[Array, "b t c"], generated: Float[Array, "b t c"], restored: Float[Array, "b t c"]
) -> Float[Array, " b"]:
    """Returns how well the jaw moves along: source with generated plus generated with restored, -2 to 2.

    Args:
      source: Windows as they were; column 0 is the jaw's opening.
      generated: The same in another style.
      restored: `generated`, given the source's style again.
    """
    return pearson(source[..., 0], generated[..., 0]) + pearson(generated[..., 0], restored[..., 0])
