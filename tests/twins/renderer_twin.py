"""The renderer's networks in PyTorch: an independent reference, and the bench's other side.

Names are the published ones. Written from the description of the method, not from the public code: a checkpoint that
loads here with `load_state_dict(strict=True)` loads there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from asccl_jax.models.renderer import IMAGE_CHANNELS, RENDERER_DEVIATION, scale_widths
from asccl_jax.models.vgg import PUBLISHED_WIDTHS
from asccl_jax.settings import RendererSettings

__all__ = ["DiscriminatorTwin", "GeneratorTwin", "VggTwin"]


def _norm(width: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(width, affine=False, track_running_stats=True)


def _initialised(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, RENDERER_DEVIATION)


class _ResidualBlock(nn.Module):
    """Two convolutions added to what came in, registered under two names as in published checkpoints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnetblock_sequential = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), _norm(width), nn.ReLU()),
            *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), _norm(width)),
        )
        self.conv_block = self.resnetblock_sequential

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class GeneratorTwin(nn.Module):
    """The generator, always with the statistics of the instance; it treats a start from zeros as the published one."""

    def __init__(self, settings: RendererSettings) -> None:
        """Makes the network with the published initialisation."""
        super().__init__()
        widths = [settings.generator_width * 2**level for level in range(settings.downsamplings + 1)]

        def encoder(channels: int) -> nn.Sequential:
            modules: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, widths[0], 7)]
            for inputs, outputs in itertools.pairwise(widths):
                modules += [_norm(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)]
            blocks = (_ResidualBlock(widths[-1]) for _ in range(settings.encoder_blocks))
            return nn.Sequential(*modules, _norm(widths[-1]), nn.ReLU(), *blocks)

        self.model_down_seg = encoder(settings.context_frames * settings.conditioning_channels)
        self.model_down_img = encoder(settings.previous_frames * IMAGE_CHANNELS)
        self.model_res_img = nn.Sequential(*(_ResidualBlock(widths[-1]) for _ in range(settings.decoder_blocks)))
        modules: list[nn.Module] = []
        for outputs, inputs in zip(widths[-2::-1], widths[:0:-1], strict=True):
            transposed = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
            modules += [transposed, _norm(outputs), nn.ReLU()]
        self.model_up_img = nn.Sequential(*modules)
        self.model_final_img = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(widths[0], IMAGE_CHANNELS, 7), nn.Tanh())
        _initialised(self)

    def forward(self, blocks: Tensor, previous: Tensor, mask: Tensor) -> Tensor:
        """Returns masked frames: conditioning (n, 27, h, w), previous frames (n, 6, h, w), mask (n, 1, h, w)."""
        encoded = self.model_down_seg(blocks) + self.model_down_img(previous)
        image = self.model_final_img(self.model_up_img(self.model_res_img(encoded)))
        return image * mask - (1 - mask)


class DiscriminatorTwin(nn.Module):
    """The multi-scale discriminator."""

    def __init__(self, settings: RendererSettings) -> None:
        """Makes the network with the published initialisation."""
        super().__init__()
        self.scales, self.layers = settings.discriminator_scales, settings.discriminator_layers + 2
        for published in range(self.scales):
            inputs = settings.conditioning_channels + IMAGE_CHANNELS
            for layer, width in enumerate(scale_widths(settings, self.scales - 1 - published)):
                stride = 2 if layer < self.layers - 2 else 1
                modules: list[nn.Module] = [nn.Conv2d(inputs, width, 4, stride=stride, padding=2)]
                if 0 < layer < self.layers - 1:
                    modules.append(_norm(width))
                if layer < self.layers - 1:
                    modules.append(nn.LeakyReLU(0.2))
                self.add_module(f"scale{published}_layer{layer}", nn.Sequential(*modules))
                inputs = width
        _initialised(self)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Returns the maps of every scale, the full resolution first."""
        judgements = []
        for published in reversed(range(self.scales)):
            maps, y = [], x
            for layer in range(self.layers):
                y = self.get_submodule(f"scale{published}_layer{layer}")(y)
                maps.append(y)
            judgements.append(maps)
            x = functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return judgements


class VggTwin(nn.Module):
    """VGG-19's convolutions, all sixteen, under torchvision's names."""

    _TAPS = (1, 6, 11, 20, 29)

    def __init__(self, widths: Sequence[int] = PUBLISHED_WIDTHS) -> None:
        """Makes the network with PyTorch's own initialisation."""
        super().__init__()
        modules: list[nn.Module] = []
        inputs = 3
        for width, count in zip(widths, (2, 2, 4, 4, 4), strict=True):
            for _ in range(count):
                modules += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            modules.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*modules)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Returns the maps after the first rectifier of each resolution; no later layer is computed."""
        taps, x = [], image
        for number in range(self._TAPS[-1] + 1):
            x = self.features[number](x)
            if number in self._TAPS:
                taps.append(x)
        return taps
