"""DECA's detail decoder: expression, jaw and detail code to a displacement map, under the published names."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["DetailDecoder"]

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
