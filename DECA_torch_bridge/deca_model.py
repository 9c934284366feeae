"""DECA's published checkpoint, read as the weights of its three networks and checked to the last name and size."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from asccl_jax.errors import InputError
from DECA_torch_bridge.state_dict import load_tensors

__all__ = [
    "COARSE_SIZES",
    "DETAIL_SIZE",
    "IMAGE_SIZE",
    "CoarseCodes",
    "DecaWeights",
    "DetailDecoder",
    "Encoder",
    "coarse_encoder",
    "detail_encoder",
    "read_deca_model",
    "split_coarse",
]

# DECA's encoders: ResNet-50 with two linear layers, under the published names; what the coarse one's output means.

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


# DECA's detail decoder: expression, jaw and detail code to a displacement map, under the published names.

_CODE_SIZE = 181
_FIRST_SIDE = 8
_WIDTHS = (128, 128, 64, 64, 32, 16)
_SCALE_M = 0.01
# Upstream: decoders.py gives BatchNorm this epsilon (but for the first); the weights were trained with it.
_NORM_EPSILON = 0.8


class DetailDecoder(nn.Module):
    """Code of 181 numbers to displacement in texture space; `load_state_dict(strict=True)` takes `D_detail`."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Sequential(nn.Linear(_CODE_SIZE, _WIDTHS[0] * _FIRST_SIDE**2))
        layers: list[nn.Module] = [nn.BatchNorm2d(_WIDTHS[0])]
        for width_in, width in itertools.pairwise(_WIDTHS):
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(width_in, width, 3, padding=1),
                nn.BatchNorm2d(width, eps=_NORM_EPSILON),
                nn.LeakyReLU(0.2),
            ]
        self.conv_blocks = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1), nn.Tanh())

    def forward(
        self, jaw: Float[Tensor, "b 3"], expression: Float[Tensor, "b 50"], detail: Float[Tensor, "b 128"]
    ) -> Float[Tensor, "b 256 256"]:
        """Returns displacement along the normal, metres, within 1 cm.

        Args:
          jaw: Axis-angle rotation of the jaw: entries 3..5 of the pose.
          expression: Expression coefficients.
          detail: Detail code of the person.
        """
        code = torch.cat([jaw, expression, detail], dim=1)
        features = self.l1(code).view(len(code), _WIDTHS[0], _FIRST_SIDE, _FIRST_SIDE)
        return _SCALE_M * self.conv_blocks(features)[:, 0]


_NETWORKS = {"E_flame": coarse_encoder, "E_detail": detail_encoder, "D_detail": DetailDecoder}


class DecaWeights(NamedTuple):
    """State dicts that fit `coarse_encoder()`, `detail_encoder()` and `DetailDecoder()`.

    Attributes:
      E_flame: Coarse encoder: shape, texture, expression, pose, camera, light.
      E_detail: Detail encoder.
      D_detail: Detail decoder.
    """

    E_flame: dict[str, Tensor]
    E_detail: dict[str, Tensor]
    D_detail: dict[str, Tensor]


def read_deca_model(path: Path) -> DecaWeights:
    """Returns the weights of a `deca_model.tar`, on the CPU.

    The file is read as tensors alone: one that carries anything to run is refused. DECA itself skips weights that are
    missing or of another size and then computes with random ones; here they are an error.

    Raises:
      InputError: No such file, a damaged, unsafe or foreign one; all keys that are wrong are listed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; `asccl head check {path.parent}` says where to get it")
    content = load_tensors(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected DECA's dictionary of networks")
    absent = [name for name in _NETWORKS if not isinstance(content.get(name), Mapping)]
    if absent:
        found = ", ".join(str(key) for key in list(content)[:8]) or "nothing"
        raise InputError(f"{path}: lacks the networks {', '.join(absent)} (it has {found}): not DECA's checkpoint")
    problems = [problem for name in _NETWORKS for problem in _problems(name, content[name])]
    if problems:
        raise InputError(f"{path}: not DECA's weights: {'; '.join(problems)}")
    return DecaWeights(*({str(key): tensor.detach() for key, tensor in content[name].items()} for name in _NETWORKS))


def _problems(network: str, weights: Mapping[Any, Any]) -> list[str]:
    """What keeps weights from fitting their network."""
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in _NETWORKS[network]().state_dict().items()}
    misshapen = []
    for key, shape in expected.items():
        weight = weights.get(key)
        if isinstance(weight, Tensor) and tuple(weight.shape) != shape:
            misshapen.append(f"{key} ({_size(weight.shape)}, expected {_size(shape)})")
        elif key in weights and not isinstance(weight, Tensor):
            misshapen.append(f"{key} ({type(weight).__name__}, expected a tensor)")
        elif isinstance(weight, Tensor) and not torch.isfinite(weight).all():
            misshapen.append(f"{key} (has values that are not finite)")
    kinds = {
        "lacks": [key for key in expected if key not in weights],
        "has unexpected": [str(key) for key in weights if key not in expected],
        "has unfit": misshapen,
    }
    if len(kinds["lacks"]) == len(expected):
        return [f"{network} has none of its {len(expected)} weights, but {', '.join(map(str, list(weights)[:8]))}"]
    return [f"{network} {kind} {', '.join(names)}" for kind, names in kinds.items() if names]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one value"
