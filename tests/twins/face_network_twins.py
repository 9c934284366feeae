"""The networks that score faces in PyTorch, under the published names: independent references for the Flax ones.

Written from a description of the networks, not from their public code. A checkpoint that loads here with
`load_state_dict(strict=True)` is a published one. Images are (b, c, h, w); all are meant for `eval()`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asccl_jax.settings import MetricSettings
from tests.twins.metric_twin import TrunkTwin

__all__ = ["ArcFaceTwin", "EfficientFaceTwin", "ResNetFaceTwin", "SyncNetTwin"]


class ArcFaceTwin(TrunkTwin):
    """IResNet with its embedding.

    Args:
      stage_blocks: Residual blocks of each stage.
      stage_widths: Channels of each stage.
      embedding: Numbers that come out.
      image_size: Side of the pictures.
    """

    def __init__(
        self,
        stage_blocks: tuple[int, int, int, int] = (3, 4, 14, 3),
        stage_widths: tuple[int, int, int, int] = (64, 128, 256, 512),
        embedding: int = 512,
        image_size: int = 112,
    ) -> None:
        super().__init__(MetricSettings(stage_blocks=stage_blocks, stage_widths=stage_widths))
        self.fc = nn.Linear(stage_widths[-1] * (image_size // 16) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def embed(self, image: Tensor) -> Tensor:
        """Returns embeddings of RGB faces in [-1, 1]."""
        return self.features(self.fc(self.bn2(self(image)[-1]).flatten(1)))


class ResNetFaceTwin(nn.Module):
    """Grey pictures in [-1, 1] to embeddings.

    Args:
      widths: Channels of each stage.
      embedding: Numbers that come out.
      image_size: Side of the pictures.
    """

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512), embedding: int = 512, image_size: int = 128
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU()
        self.maxpool = nn.MaxPool2d(2, 2)
        width_in = widths[0]
        for number, width in enumerate(widths, start=1):
            layer = nn.Sequential(_FaceBlock(width_in, width, 1 if number == 1 else 2), _FaceBlock(width, width, 1))
            self.add_module(f"layer{number}", layer)
            width_in = width
        self.bn4 = nn.BatchNorm2d(width_in)
        self.fc5 = nn.Linear(width_in * (image_size // 16) ** 2, embedding)
        self.bn5 = nn.BatchNorm1d(embedding)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the embeddings."""
        features = self.maxpool(self.prelu(self.bn1(self.conv1(image))))
        for number in range(1, 5):
            features = self.get_submodule(f"layer{number}")(features)
        return self.bn5(self.fc5(self.bn4(features).flatten(1)))


class _FaceBlock(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_in, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_in)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            shortcut = nn.Conv2d(width_in, width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        inner = self.prelu(self.bn1(self.conv1(self.bn0(features))))
        return self.prelu(self.bn2(self.conv2(inner)) + self.downsample(features))


class EfficientFaceTwin(nn.Module):
    """Normalised RGB pictures to features and logits of emotions.

    Args:
      stem_width: Channels before the stages.
      stage_widths: Channels of the three stages.
      stage_units: Units of each stage.
      features: Features that the classes are told from.
      classes: Emotions.
    """

    def __init__(
        self,
        stem_width: int = 29,
        stage_widths: Sequence[int] = (116, 232, 464),
        stage_units: Sequence[int] = (4, 8, 4),
        features: int = 1024,
        classes: int = 7,
    ) -> None:
        super().__init__()
        self.conv1 = _conv_relu(nn.Conv2d(3, stem_width, 3, stride=2, padding=1, bias=False))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        width_in = stem_width
        for number, (width, units) in enumerate(zip(stage_widths, stage_units, strict=True), start=2):
            stage = [_ShuffleUnit(width_in, width, 2), *(_ShuffleUnit(width, width, 1) for _ in range(units - 1))]
            self.add_module(f"stage{number}", nn.Sequential(*stage))
            width_in = width
        self.local = _Local(stem_width, stage_widths[0])
        self.modulator = _Modulator(stage_widths[0])
        self.conv5 = _conv_relu(nn.Conv2d(width_in, features, 1, bias=False))
        self.fc = nn.Linear(features, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features and logits."""
        stem = self.maxpool(self.conv1(image))
        maps = self.modulator(self.get_submodule("stage2")(stem)) + self.local(stem)
        maps = self.get_submodule("stage4")(self.get_submodule("stage3")(maps))
        features = self.conv5(maps).mean(dim=(2, 3))
        return features, self.fc(features)


class _ShuffleUnit(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(
                *_depthwise(width_in, stride), *_conv_relu(nn.Conv2d(width_in, half, 1, bias=False))
            )
        inputs = width_in if stride == 2 else half
        self.branch2 = nn.Sequential(
            *_conv_relu(nn.Conv2d(inputs, half, 1, bias=False)),
            *_depthwise(half, stride),
            *_conv_relu(nn.Conv2d(half, half, 1, bias=False)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        first, second = (maps, maps) if len(self.branch1) else maps.chunk(2, dim=1)
        joined = torch.cat([self.branch1(first), self.branch2(second)], dim=1)
        batch, channels, height, width = joined.shape
        return joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(joined.shape)


class _Local(nn.Module):
    """Quadrants in the order top left, bottom left, top right, bottom right."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        for number in range(1, 5):
            first = nn.Conv2d(inputs, width, 3, stride=2, padding=1, groups=inputs, bias=False)
            self.add_module(f"conv{number}_1", first)
            self.add_module(f"bn{number}_1", nn.BatchNorm2d(width))
            second = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
            self.add_module(f"conv{number}_2", second)
            self.add_module(f"bn{number}_2", nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        columns, number = [], 0
        for column in maps.chunk(2, dim=3):
            rows = []
            for part in column.chunk(2, dim=2):
                number += 1
                for layer in (1, 2):
                    convolved = self.get_submodule(f"conv{number}_{layer}")(part)
                    part = torch.relu(self.get_submodule(f"bn{number}_{layer}")(convolved))
                rows.append(part)
            columns.append(torch.cat(rows, dim=2))
        return torch.cat(columns, dim=3)


class _Modulator(nn.Module):
    """Attention to channels times attention to places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channel: dict[str, nn.Module] = {
            "fc_0": nn.Linear(width, 7),
            "bn_1": nn.BatchNorm1d(7),
            "relu_1": nn.ReLU(),
            "fc_final": nn.Linear(7, width),
        }
        place: dict[str, nn.Module] = {
            "conv_reduce0": nn.Conv2d(width, 7, 1),
            "bn_reduce0": nn.BatchNorm2d(7),
            "relu_reduce0": nn.ReLU(),
            "conv_di_0": nn.Conv2d(7, 7, 3, padding=4, dilation=4),
            "bn_di_0": nn.BatchNorm2d(7),
            "relu_di_0": nn.ReLU(),
            "conv_di_1": nn.Conv2d(7, 7, 3, padding=4, dilation=4),
            "bn_di_1": nn.BatchNorm2d(7),
            "relu_di_1": nn.ReLU(),
            "conv_final": nn.Conv2d(7, 1, 1),
        }
        self.channel_att, self.spatial_att = nn.Module(), nn.Module()
        self.channel_att.gate_c = _named("gate_c_", channel)
        self.spatial_att.gate_s = _named("gate_s_", place)

    def forward(self, maps: Tensor) -> Tensor:
        channel = self.get_submodule("channel_att.gate_c")(maps.mean(dim=(2, 3)))
        place = self.get_submodule("spatial_att.gate_s")(maps)
        return torch.sigmoid(channel[:, :, None, None] * place) * maps


class SyncNetTwin(nn.Module):
    """Windows of five frames (b, 3, 5, 224, 224), BGR in 0..255, and of sound (b, 1, 13, 20), to embeddings.

    Args:
      lip_widths: Channels of the convolutions over pictures.
      audio_widths: Channels of the convolutions over sound.
      hidden: Channels between the linear layers.
      embedding: Numbers that come out.
    """

    def __init__(
        self,
        lip_widths: Sequence[int] = (96, 256, 256, 256, 256, 512),
        audio_widths: Sequence[int] = (64, 192, 384, 256, 256, 512),
        hidden: int = 512,
        embedding: int = 1024,
    ) -> None:
        super().__init__()
        a, b, c, d, e, f = audio_widths
        self.netcnnaud = nn.Sequential(
            *_norm_relu(nn.Conv2d(1, a, 3, padding=1), nn.BatchNorm2d(a)),
            nn.MaxPool2d(1, 1),
            *_norm_relu(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b)),
            nn.MaxPool2d(3, (1, 2)),
            *_norm_relu(nn.Conv2d(b, c, 3, padding=1), nn.BatchNorm2d(c)),
            *_norm_relu(nn.Conv2d(c, d, 3, padding=1), nn.BatchNorm2d(d)),
            *_norm_relu(nn.Conv2d(d, e, 3, padding=1), nn.BatchNorm2d(e)),
            nn.MaxPool2d(3, 2),
            *_norm_relu(nn.Conv2d(e, f, (5, 4)), nn.BatchNorm2d(f)),
        )
        a, b, c, d, e, g = lip_widths
        flat = (0, 1, 1)
        self.netcnnlip = nn.Sequential(
            *_norm_relu(nn.Conv3d(3, a, (5, 7, 7), (1, 2, 2)), nn.BatchNorm3d(a)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_norm_relu(nn.Conv3d(a, b, (1, 5, 5), (1, 2, 2), flat), nn.BatchNorm3d(b)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), flat),
            *_norm_relu(nn.Conv3d(b, c, (1, 3, 3), 1, flat), nn.BatchNorm3d(c)),
            *_norm_relu(nn.Conv3d(c, d, (1, 3, 3), 1, flat), nn.BatchNorm3d(d)),
            *_norm_relu(nn.Conv3d(d, e, (1, 3, 3), 1, flat), nn.BatchNorm3d(e)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_norm_relu(nn.Conv3d(e, g, (1, 6, 6)), nn.BatchNorm3d(g)),
        )
        self.netfcaud, self.netfclip = (
            nn.Sequential(
                *_norm_relu(nn.Linear(width, hidden), nn.BatchNorm1d(hidden)),
                nn.Linear(hidden, embedding),
            )
            for width in (f, g)
        )

    def lip(self, windows: Tensor) -> Tensor:
        """Returns embeddings of windows of frames."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))

    def audio(self, mfcc: Tensor) -> Tensor:
        """Returns embeddings of windows of sound."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))


def _named(prefix: str, layers: dict[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"{prefix}{name}", layer) for name, layer in layers.items()))


def _conv_relu(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(*_norm_relu(convolution, nn.BatchNorm2d(convolution.out_channels)))


def _depthwise(width: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)


def _norm_relu(layer: nn.Module, norm: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    return layer, norm, nn.ReLU()
