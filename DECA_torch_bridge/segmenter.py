"""Face segmentation: the UNet that tells background, face and hair apart, under the published names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from asccl_jax.data.aligned_frames import decode_picture
from asccl_jax.data.schema import RenderRecord
from asccl_jax.errors import InputError
from asccl_jax.image.blending import soft_erosion
from data_prep.video.face_masks import MaskRule, largest_piece
from DECA_torch_bridge.state_dict import read_state_dict

__all__ = ["FACE", "Segmenter", "face_mask", "segmentation_rule"]

FACE = 1
"""Class of the face; 0 is the background, 2 the hair."""

_SEGMENT_EROSION = 21
_SEGMENT_SHARE = 0.6
"""Surroundings and share of the published erosion of a segmentation."""
_CLASSES = 3
_WIDTHS = (64, 128, 256, 512, 1024)


class Segmenter(nn.Module):
    """RGB pictures, 0..1, to scores of three classes.

    Args:
      reduction: Divides all widths: 1 for the published network.
      bn_mode: "running" uses the statistics of the checkpoint. "instance" those of each picture by itself.
    """

    # Upstream: segmentation never leaves train mode, so each picture was normalised by itself, and the running
    # statistics drifted with use. "instance" gives those masks without the drift.
    def __init__(self, reduction: int = 1, bn_mode: Literal["running", "instance"] = "running") -> None:
        super().__init__()
        widths = [width // reduction for width in _WIDTHS]
        for level, (width_in, width) in enumerate(zip([3, *widths[:3]], widths[:4], strict=True), start=1):
            self.add_module(f"conv{level}", _Double(width_in, width, bn_mode))
        self.center = _Double(widths[3], widths[4], bn_mode)
        for level, width in enumerate(widths[:4], start=1):
            self.add_module(f"up_concat{level}", _Up(width * 2, width))
        self.final = nn.Conv2d(widths[0], _CLASSES, 1)

    def forward(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b h w 3"]:
        """Returns scores; height and width must be multiples of 16 (the network was trained at 256)."""
        features, skips = image.movedim(-1, 1), []
        for level in range(1, 5):
            skips.append(self.get_submodule(f"conv{level}")(features))
            features = functional.max_pool2d(skips[-1], 2)
        features = self.center(features)
        for level in range(4, 0, -1):
            features = self.get_submodule(f"up_concat{level}")(skips[level - 1], features)
        return self.final(features).movedim(1, -1)


def face_mask(scores: Float[Tensor, "b h w 3"]) -> Bool[Tensor, "b h w"]:
    """Returns where the face scores highest."""
    return scores.argmax(dim=-1) == FACE


class _Norm(nn.BatchNorm2d):
    """BatchNorm by the running statistics, or by those of each picture alone."""

    def __init__(self, width: int, mode: str) -> None:
        super().__init__(width)
        self._by_instance = mode == "instance"

    def forward(self, features: Tensor) -> Tensor:
        if self._by_instance:
            return functional.instance_norm(features, weight=self.weight, bias=self.bias, eps=self.eps)
        return super().forward(features)


class _Double(nn.Module):
    """Two 3x3 convolutions; without normalisation in the ascending half."""

    def __init__(self, width_in: int, width: int, bn_mode: str | None = None) -> None:
        super().__init__()
        for number, channels in ((1, width_in), (2, width)):
            norm = [_Norm(width, bn_mode)] if bn_mode else []
            self.add_module(f"conv{number}", nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), *norm, nn.ReLU()))

    def forward(self, features: Tensor) -> Tensor:
        return self.get_submodule("conv2")(self.get_submodule("conv1")(features))


class _Up(nn.Module):
    """Doubles the deeper map, halves its channels and joins it with the map of the descending half."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv = _Double(width * 2, width)
        # A 1x1 convolution in two dimensions, whatever its published name says.
        self.conv1d = nn.Conv2d(width_in, width, 1)

    def forward(self, skip: Tensor, deeper: Tensor) -> Tensor:
        raised = functional.interpolate(deeper, scale_factor=2, mode="bilinear", align_corners=True)
        return self.conv(torch.cat([skip, self.conv1d(raised)], dim=1))


def segmentation_rule(path: Path) -> MaskRule:
    """Returns the rule of a face segmentation, as published: eroded a little, and the largest piece of it.

    Args:
      path: Checkpoint of the UNet.

    Raises:
      InputError: No such checkpoint, or one of another network.
    """
    network = Segmenter()
    arrays = read_state_dict(path)
    known = network.state_dict()
    # Older files lack the counters of batches, which nothing uses.
    missing = [key for key in known if key not in arrays and not key.endswith("num_batches_tracked")]
    strange = [key for key in arrays if key not in known or tuple(arrays[key].shape) != tuple(known[key].shape)]
    if missing or strange:
        raise InputError(
            f"{path}: not the face segmentation UNet: {len(missing)} entries are missing ({', '.join(missing[:3])}),"
            f" {len(strange)} do not belong ({', '.join(strange[:3])}); expected"
            " lfw_figaro_unet_256_2_0_segmentation_v1.pth"
        )
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}, strict=False)
    # Upstream: segmentation ran in train mode. The checkpoint's own statistics do not drift with what was seen before.
    network.eval()

    def rule(record: RenderRecord) -> Bool[np.ndarray, "256 256"]:
        image = torch.from_numpy(decode_picture(record.aligned_image)).float() / 255
        with torch.inference_mode():
            face = face_mask(network(image[None]))[0].numpy()
        eroded = soft_erosion(face.astype(np.float32), size=_SEGMENT_EROSION, threshold=_SEGMENT_SHARE).hard
        return largest_piece(eroded)

    return rule
