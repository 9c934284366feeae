"""Arithmetic of the renderer's networks and of its training step, counted by hand from the shapes.

A multiply and an add are two operations; only convolutions count. See `bench.flops`.
"""

from __future__ import annotations

from asccl_jax.bench.flops import forward_flops
from asccl_jax.models.patch_discriminator import scale_widths
from asccl_jax.models.renderer import IMAGE_CHANNELS
from asccl_jax.models.vgg import PUBLISHED_WIDTHS, STAGE_CONVOLUTIONS
from asccl_jax.renderer_settings import RendererSettings
from asccl_jax.settings import MetricSettings

__all__ = ["STEP_FRAMES", "generator_flops", "metric_settings", "renderer_step_flops", "vgg_widths"]

STEP_FRAMES = 4
"""Frames of the training step, as published."""


def metric_settings(settings: RendererSettings) -> MetricSettings:
    """Returns the metric that supervises: the published one, narrower as the generator is."""
    widths = tuple(max(4, width * settings.generator_width // 64) for width in MetricSettings().stage_widths)
    return MetricSettings.from_compat("released", stage_widths=widths)


def vgg_widths(settings: RendererSettings) -> tuple[int, ...]:
    """Returns the widths of the perceptual loss's VGG-19, narrower as the generator is."""
    return tuple(max(4, width * settings.generator_width // 64) for width in PUBLISHED_WIDTHS)


def generator_flops(settings: RendererSettings) -> int:
    """Returns the operations of drawing one frame.

    >>> round(generator_flops(RendererSettings()) / 1e9, 1)
    171.8
    """
    size, width, levels = settings.image_size, settings.generator_width, settings.downsamplings
    conditioning = settings.context_frames * settings.conditioning_channels
    wide = 49 * size**2 * width * (conditioning + IMAGE_CHANNELS * settings.previous_frames + IMAGE_CHANNELS)
    # A doubling does as many products as the halving it turns round; there are two encoders and a decoder.
    halvings = (9 * (size >> level) ** 2 * (width << level) * (width << level) // 2 for level in range(1, levels + 1))
    between = 3 * sum(halvings)
    blocks = 2 * settings.encoder_blocks + settings.decoder_blocks
    residual = blocks * 2 * 9 * (size >> levels) ** 2 * (width << levels) ** 2
    return 2 * (wide + between + residual)


def renderer_step_flops(settings: RendererSettings) -> int:
    """Returns the operations that a training step on four frames needs, with VGG-19 and metric on whole frames.

    Generated frames go forward through everything and back; the frozen networks need no gradient of their weights, and
    of real frames none at all. A discriminator's pass over generated frames is pulled back to the frames for the
    generator as well as to its weights.

    >>> round(renderer_step_flops(RendererSettings()) / 1e12, 2)
    3.72
    """
    metric = forward_flops(metric_settings(settings), settings.image_size)
    judges = _discriminator_flops(settings, settings.image_size)
    judges += (len(settings.discriminators) - 1) * _discriminator_flops(settings, settings.roi_size)
    return STEP_FRAMES * (3 * (generator_flops(settings) + _vgg_flops(settings) + metric) + 7 * judges)


def _vgg_flops(settings: RendererSettings) -> int:
    size, channels, total = settings.image_size, IMAGE_CHANNELS, 0
    for width, convolutions in zip(vgg_widths(settings), STAGE_CONVOLUTIONS, strict=True):
        total += 9 * size**2 * (channels * width + (convolutions - 1) * width**2)
        size, channels = size // 2, width
    return 2 * total


def _discriminator_flops(settings: RendererSettings, size: int) -> int:
    total = 0
    for scale in range(settings.discriminator_scales):
        side, channels = size, settings.conditioning_channels + IMAGE_CHANNELS
        widths = scale_widths(settings, scale)
        for layer, width in enumerate(widths):
            side = side // 2 + 1 if layer < len(widths) - 2 else side + 1
            total += 16 * side**2 * channels * width
            channels = width
        size = -(-size // 2)
    return 2 * total
