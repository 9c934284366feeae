"""Arithmetic of a metric's training step, counted by hand from the shapes.

A multiply and an add are two operations. XLA's own count is reported beside it, but it counts the body of a loop once
and knows nothing of a library call's inside, so this one is what utilisation is computed from.
"""

from __future__ import annotations

from asccl_jax.settings import MetricSettings

__all__ = ["forward_flops", "step_flops"]


def forward_flops(settings: MetricSettings, image_size: int) -> int:
    """Returns the operations of the trunk's convolutions on one image.

    >>> round(forward_flops(MetricSettings(depth=50), 224) / 1e9, 1)
    50.4
    """
    size, width_in = image_size, settings.stage_widths[0]
    total = size**2 * 9 * 3 * width_in
    for blocks, width in zip(settings.blocks, settings.stage_widths, strict=True):
        halved = -(-size // 2)
        total += size**2 * 9 * width_in * width  # first block: full size in, half size out
        total += halved**2 * (9 * width + width_in) * width
        total += (blocks - 1) * halved**2 * 2 * 9 * width * width
        size, width_in = halved, width
    return 2 * total


def step_flops(settings: MetricSettings, image_size: int, pairs: int) -> int:
    """Returns the operations a training step on some pairs needs.

    Query and key go forward; the gradient, twice the cost of a forward pass, is the query's alone. Heads, losses and
    normalisation are left out, together under one percent.

    >>> round(step_flops(MetricSettings(depth=50), 224, 8) / 1e12, 2)
    1.61
    """
    return 4 * forward_flops(settings, image_size) * pairs
