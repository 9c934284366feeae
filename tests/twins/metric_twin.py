"""The correlation metric in PyTorch, under the published names: an independent reference, and the bench's other side.

Written from the description of the method, not from the public code. A checkpoint that loads here with
`load_state_dict(strict=True)` loads there. In train mode with the settings of `compat="released"` the loss is the
published one; the settings of "paper" are there as well, so that both forms can be compared with Flax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from asccl_jax.settings import MetricSettings

__all__ = ["CorrelationMetricTwin", "TrunkTwin", "TwinLoss", "draw_centres"]

_OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


class TwinLoss(NamedTuple):
    """Loss of one pair of batches and what it is made of.

    Attributes:
      loss: The scalar to minimise.
      stage_losses: Weighted losses of the four stages, before `loss_scale`.
      stage_nce: Mean cross entropies of the four stages.
    """

    loss: Tensor
    stage_losses: tuple[Tensor, ...]
    stage_nce: tuple[Tensor, ...]


class _Block(nn.Module):
    """Residual block of ArcFace's IResNet: the stride is in the second convolution, nothing follows the sum."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = (
            nn.Sequential(nn.Conv2d(width_in, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
            if stride != 1
            else nn.Identity()
        )

    def forward(self, features: Tensor) -> Tensor:
        inner = self.prelu(self.bn2(self.conv1(self.bn1(features))))
        return self.bn3(self.conv2(inner)) + self.downsample(features)


class TrunkTwin(nn.Module):
    """IResNet without its embedding; `bn2` is in every checkpoint and never called."""

    def __init__(self, settings: MetricSettings) -> None:
        """Makes the trunk that the settings name, with ArcFace's random weights."""
        super().__init__()
        width_in = settings.stage_widths[0]
        self.conv1 = nn.Conv2d(3, width_in, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_in)
        self.prelu = nn.PReLU(width_in)
        for stage, (blocks, width) in enumerate(zip(settings.blocks, settings.stage_widths, strict=True), start=1):
            layer = [_Block(width_in, width, 2), *(_Block(width, width, 1) for _ in range(blocks - 1))]
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
            width_in = width
        self.bn2 = nn.BatchNorm2d(width_in)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Returns the maps of the four stages."""
        features = self.prelu(self.bn1(self.conv1(image)))
        maps = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            features = self.get_submodule(name)(features)
            maps.append(features)
        return maps


class CorrelationMetricTwin(nn.Module):
    """Trunk, heads and loss of the metric; images are (b, 3, h, w) in [-1, 1] in the trained channel order."""

    def __init__(self, settings: MetricSettings) -> None:
        """Makes the network with PyTorch's own random weights.

        Args:
          settings: Network and loss. BatchNorm statistics are always over the whole batch here.
        """
        super().__init__()
        self.settings = settings
        self.resnet50 = TrunkTwin(settings)
        # One flat list, as published: the linear layers of stage l (from 0) are at 3l and 3l + 2.
        heads: list[nn.Module] = []
        for width in settings.stage_widths:
            heads += [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width // 4)]
        self.mlp = nn.ModuleList(heads)

    def features(self, image: Tensor) -> list[Tensor]:
        """Returns the maps of the four stages."""
        return self.resnet50(image)

    def embed(self, stage: int, disparities: Tensor) -> Tensor:
        """Returns unit embeddings (b, p, c/4) of disparities (b, p, c) of a stage from 0."""
        hidden, activation, output = self.mlp[3 * stage : 3 * stage + 3]
        raw = output(activation(hidden(disparities)))
        return raw / (raw.norm(dim=-1, keepdim=True) + 1e-7)

    def forward(self, query: Tensor, key: Tensor, centres: Sequence[np.ndarray]) -> TwinLoss:
        """Returns the loss of a batch of pairs.

        In train mode the query goes first, then the key, each with statistics of its own, as published.

        Args:
          query: Neutral or generated images.
          key: Emotional or real images; no gradient reaches them past the heads.
          centres: Rows and columns (n, 2) of the centres of each stage.
        """
        query_maps, key_maps = self.features(query), self.features(key)
        stage_losses, stage_nce = [], []
        for stage, (query_map, key_map) in enumerate(zip(query_maps, key_maps, strict=True)):
            disparities = _disparities(query_map, centres[stage])
            nce = self._cross_entropy(
                self.embed(stage, disparities), self.embed(stage, _disparities(key_map, centres[stage])).detach()
            )
            stage_losses.append(self._weighted(nce, disparities))
            stage_nce.append(nce.mean())
        loss = self.settings.loss_scale * torch.stack(stage_losses).sum()
        return TwinLoss(loss, tuple(stage_losses), tuple(stage_nce))

    def _cross_entropy(self, query: Tensor, key: Tensor) -> Tensor:
        """Returns the cross entropy (b, p) of finding each query's own key among all keys of its image."""
        logits = query @ key.transpose(1, 2) / self.settings.temperature
        pairs = logits.shape[-1]
        if self.settings.mask_same_centre:
            group = torch.arange(pairs, device=logits.device) // len(_OFFSETS)
            others = (group[:, None] == group[None, :]) & ~torch.eye(pairs, dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(others, -torch.inf)
        target = torch.arange(pairs, device=logits.device).expand(logits.shape[:2])
        return functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)

    def _weighted(self, nce: Tensor, disparities: Tensor) -> Tensor:
        """Returns the stage's loss (scalar) of cross entropies (b, p) and query disparities (b, p, c)."""
        settings = self.settings
        if settings.weighting == "none":
            return nce.mean()
        size = disparities.abs()
        if settings.weight_reduction == "norm":
            size = disparities.square().mean(dim=-1, keepdim=True).sqrt()
        steepness = torch.sigmoid(size)
        weight = torch.where(steepness > 0.8, 2 * steepness.square(), torch.ones_like(steepness))
        if settings.weight_gradient == "stopped":
            weight = weight.detach()
        if settings.weighting == "global":
            return nce.mean() * weight.mean()
        return (nce * weight.mean(dim=-1)).mean()


def draw_centres(settings: MetricSettings, image_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Returns centres (n, 2) for each stage of a square image, drawn without replacement."""
    centres = []
    size = image_size
    for count in settings.centre_counts:
        size = -(-size // 2)
        side = int(size // 2 + 0.45 * size)
        first = (size - side) // 2
        last = first + side - 1
        if settings.border == "inside":
            first, last = max(first, 1), min(last, size - 2)
        cells = np.stack(np.meshgrid(*[np.arange(first, last + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
        centres.append(random.permutation(cells)[:count])
    return centres


def _disparities(features: Tensor, centres: np.ndarray) -> Tensor:
    """Returns centre minus neighbour, (b, p, c), of a map (b, c, h, w); an index of -1 is the far edge."""
    around = (centres[:, None, :] + np.array(_OFFSETS)).reshape(-1, 2)
    at_centre = np.repeat(centres, len(_OFFSETS), axis=0)
    difference = features[:, :, at_centre[:, 0], at_centre[:, 1]] - features[:, :, around[:, 0], around[:, 1]]
    return difference.transpose(1, 2)
