"""DECA's encoders: ResNet-50 with two linear layers, under the published names; what the coarse one's output means."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from asccl_jax.errors import InputError

__all__ = [
    "COARSE_SIZES",
    "DETAIL_SIZE",
    "IMAGE_SIZE",
    "CoarseCodes",
    "Encoder",
    "coarse_encoder",
    "detail_encoder",
    "split_coarse",
]

IMAGE_SIZE = 224
DETAIL_SIZE = 128
COARSE_SIZES = {"shape": 100, "tex": 50, "exp": 50, "pose": 6, "cam": 3, "light": 27}
"""Entries of the coarse encoder's output, in its order."""

_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
_EXPANSION = 4
_HIDDEN = 1024


class CoarseCodes(NamedTuple):
    """The coarse encoder's output by meaning.

    Attributes:
      shape: Identity coefficients.
      tex: Texture coefficients.
      exp: Expression coefficients.
      pose: Axis-angle rotations of head and jaw, radians.
      cam: Scale, tx, ty.
      light: Nine spherical harmonics for red, green and blue.
    """

    shape: Float[Tensor, "b 100"]
    tex: Float[Tensor, "b 50"]
    exp: Float[Tensor, "b 50"]
    pose: Float[Tensor, "b 6"]
    cam: Float[Tensor, "b 3"]
    light: Float[Tensor, "b 9 3"]


class Encoder(nn.Module):
    """Face crop to codes.

    Args:
      outputs: Numbers that come out.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.encoder = _ResNet50()
        self.layers = nn.Sequential(
            nn.Linear(_STAGES[-1][1] * _EXPANSION, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, outputs)
        )

    def forward(self, image: Float[Tensor, "b 224 224 3"]) -> Float[Tensor, "b o"]:
        """Returns codes of RGB crops, 0..1.

        Raises:
          InputError: Crops of another size.
        """
        return self.layers(self.features(image))

    def features(self, image: Float[Tensor, "b 224 224 3"]) -> Float[Tensor, "b 2048"]:
        """Returns what the linear layers see."""
        if tuple(image.shape[1:]) != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise InputError(
                f"encoder input: got shape {tuple(image.shape)}, expected RGB crops of {IMAGE_SIZE} x {IMAGE_SIZE}"
                " with the channels last; resize them first"
            )
        return self.encoder(image.movedim(-1, 1))


def coarse_encoder() -> Encoder:
    """Returns an untrained `E_flame`: shape, texture, expression, pose, camera and light."""
    return Encoder(sum(COARSE_SIZES.values()))


def detail_encoder() -> Encoder:
    """Returns an untrained `E_detail`."""
    return Encoder(DETAIL_SIZE)


def split_coarse(codes: Float[Tensor, "b 236"]) -> CoarseCodes:
    """Returns the coarse encoder's output by meaning."""
    shape, tex, exp, pose, cam, light = torch.split(codes, list(COARSE_SIZES.values()), dim=1)
    return CoarseCodes(shape, tex, exp, pose, cam, light.view(-1, 9, 3))


class _Bottleneck(nn.Module):
    """Residual block 1x1, 3x3 (which carries the stride), 1x1."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        width_out = width * _EXPANSION
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            convolution = nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(width_out))

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(features)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + self.downsample(features))


class _ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width_in = _STAGES[0][1]
        self.conv1 = nn.Conv2d(3, width_in, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width_in)
        for number, (blocks, width, stride) in enumerate(_STAGES, start=1):
            width_out = width * _EXPANSION
            first = _Bottleneck(width_in, width, stride)
            layer = nn.Sequential(first, *(_Bottleneck(width_out, width, 1) for _ in range(blocks - 1)))
            self.add_module(f"layer{number}", layer)
            width_in = width_out
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        features = functional.relu(self.bn1(self.conv1(image)))
        features = functional.max_pool2d(features, 3, stride=2, padding=1)
        for number in range(1, len(_STAGES) + 1):
            features = self.get_submodule(f"layer{number}")(features)
        return functional.avg_pool2d(features, 7).flatten(1)
