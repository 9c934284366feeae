"""The PyTorch side of `asccl bench renderer`: a worker that draws frames and a clip, and trains."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asccl_jax.bench.harness import StepOptions, serve
from asccl_jax.bench.renderer_bench import STEP_FRAMES, metric_settings, vgg_widths
from asccl_jax.losses.generator import VGG_WEIGHTS
from asccl_jax.settings import RendererSettings
from tests.twins.metric_twin import CorrelationMetricTwin, draw_centres
from tests.twins.renderer_twin import DiscriminatorTwin, GeneratorTwin, VggTwin

__all__ = ["build"]

_LEARNING_RATE = 2e-4


def build(options: StepOptions) -> tuple[Callable[[int, str], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Returns the steps, description and closing measurements that `asccl_jax.bench.harness.serve` asks for."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    fields = dict(options.settings)
    frames, _, with_step = fields.pop("frames"), fields.pop("chunk"), fields.pop("step")
    settings = RendererSettings.from_dict(fields)
    generator = GeneratorTwin(settings).to(device)
    half = options.dtype == "bfloat16"
    # Half precision on a GPU is only fast with channels last; float32 keeps the published layout.
    if half:
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's own stubs
    precision = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def inputs(count: int) -> tuple[Tensor, ...]:
        channels = (settings.context_frames * settings.conditioning_channels, 3 * settings.previous_frames, 1)
        return tuple(
            torch.rand(count, depth, settings.image_size, settings.image_size, device=device) for depth in channels
        )

    given, eight = inputs(options.batch_size), inputs(8) if on_gpu else None
    clip = torch.rand(frames + settings.context_frames - 1, 9, *given[0].shape[2:]).mul(255).byte().to(device)

    def forward(given: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            generator(*given)

    def backward() -> None:
        generator.zero_grad(set_to_none=True)
        generator(*given).square().mean().backward()

    def video() -> None:
        previous = torch.zeros_like(given[1][:1])
        with torch.no_grad():
            for first in range(frames):
                window = clip[first : first + settings.context_frames].flatten(0, 1)[None].float() / 255
                image = generator(window, previous, torch.ones_like(given[2][:1]))
                previous = torch.cat([previous[:, 3:], image], dim=1)
                ((image[0] + 1) * 127.5).clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy()

    parts: dict[str, Callable[[], None]] = {"forward": lambda: forward(given), "backward": backward, "video": video}
    if eight is not None:
        parts["forward_8"] = lambda: forward(eight)
    if with_step:
        parts["step"] = _PublishedStep(settings, generator, device, options.seed)

    def steps(count: int, part: str) -> None:
        with precision:
            for _ in range(count):
                parts[part]()
        if on_gpu:
            torch.cuda.synchronize()

    description = {
        "framework": "torch",
        "versions": {"torch": torch.__version__},
        "platform": device.type,
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "parts": list(parts),
    }
    return steps, description, lambda: {"peak_device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None}


class _PublishedStep:
    """The published step on four frames: every discriminator passes over the generated frames twice."""

    def __init__(self, settings: RendererSettings, generator: GeneratorTwin, device: torch.device, seed: int) -> None:
        self._settings, self._generator = settings, generator
        self._random = np.random.default_rng(seed)
        self._judges = [DiscriminatorTwin(settings).to(device) for _ in settings.discriminators]
        self._vgg = VggTwin(vgg_widths(settings)).to(device).requires_grad_(False)
        # Upstream: renderer/models/head2head_model.py leaves the frozen metric in train mode.
        self._metric = CorrelationMetricTwin(metric_settings(settings)).to(device).train().requires_grad_(False)
        betas = (0.5, 0.999)
        self._optimizers = [
            torch.optim.Adam(generator.parameters(), lr=_LEARNING_RATE, betas=betas),
            torch.optim.Adam([p for judge in self._judges for p in judge.parameters()], lr=_LEARNING_RATE, betas=betas),
        ]
        side = settings.image_size
        self._blocks = torch.rand(STEP_FRAMES + settings.context_frames - 1, 9, side, side, device=device)
        self._real = 2 * torch.rand(STEP_FRAMES, 3, side, side, device=device) - 1

    def __call__(self) -> None:
        fake = self._draw()
        condition = self._blocks[-STEP_FRAMES:]
        middle = (self._settings.image_size - self._settings.roi_size) // 2
        of_generator = self._supervise(fake)
        of_judges = fake.new_zeros(())
        for number, judge in enumerate(self._judges):
            inside = slice(middle, middle + self._settings.roi_size) if number else slice(None)
            shown, drawn, real = (x[:, :, inside, inside] for x in (condition, fake, self._real))
            real_maps = judge(torch.cat([shown, real], 1))
            seen = judge(torch.cat([shown, drawn.detach()], 1))
            of_judges = of_judges + 0.5 * (_distance_to(seen, 0.0) + _distance_to(real_maps, 1.0))
            maps = judge(torch.cat([shown, drawn], 1))
            of_generator = of_generator + _distance_to(maps, 1.0) + 10 * _matching(maps, real_maps)
        for optimizer, loss in zip(self._optimizers, (of_generator, of_judges), strict=True):
            # The generator's loss leaves gradients with the discriminators too, which are thrown away, as published.
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def _draw(self) -> Tensor:
        size, context = self._settings.image_size, self._settings.context_frames
        previous = self._real.new_zeros(1, 3 * self._settings.previous_frames, size, size)
        mask, drawn = self._real.new_ones(1, 1, size, size), []
        for first in range(STEP_FRAMES):
            drawn.append(self._generator(self._blocks[first : first + context].flatten(0, 1)[None], previous, mask))
            previous = torch.cat([previous[:, 3:], drawn[-1].detach()], dim=1)
        return torch.cat(drawn)

    def _supervise(self, fake: Tensor) -> Tensor:
        centres = draw_centres(self._metric.settings, self._settings.image_size, self._random)
        metric: Tensor = self._metric(fake, self._real, centres).loss
        pairs = zip(self._vgg(fake), self._vgg(self._real), VGG_WEIGHTS, strict=True)
        terms = [weight * functional.l1_loss(found, expected) for found, expected, weight in pairs]
        return metric + 10 * torch.stack(terms).sum()


def _distance_to(judgements: list[list[Tensor]], label: float) -> Tensor:
    return torch.stack([(maps[-1] - label).square().mean() for maps in judgements]).sum()


def _matching(found: list[list[Tensor]], expected: list[list[Tensor]]) -> Tensor:
    terms = [
        functional.l1_loss(ours, theirs.detach())
        for our_maps, their_maps in zip(found, expected, strict=True)
        for ours, theirs in zip(our_maps[:-1], their_maps[:-1], strict=True)
    ]
    return torch.stack(terms).sum() / len(found)


if __name__ == "__main__":
    sys.exit(serve(build))
